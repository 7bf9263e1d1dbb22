"""Slow sources in threads of their own: waited for once and briefly, kept for the process, and never two at a time.

A source that misses the deadline goes on; its tags come with the next run. A source that hangs costs the
first run its deadline and later runs nothing, and holds one daemon thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

Found = dict[str, str]
_MOST_ENTRIES = 64


def debug(message: str, *arguments: object) -> None:
    """One line at DEBUG, redacted. Loads the logger only now: it costs more than many a source."""
    from mlflow_plugkit.logs import get_logger

    get_logger("mlflow_run_context").debug(message, *arguments)


class Job(NamedTuple):
    """One source to ask.

    Attributes:
        name: for the debug line.
        key: what its answer depends on: the folder, the state of files. Another key is another question.
        ask: returns tags without prefix; whatever it raises is one debug line and no tags.
        max_age: seconds for which its answer stands.
    """

    name: str
    key: Hashable
    ask: Callable[[], Found]
    max_age: float = float("inf")


class _Entry:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: Found = {}
        self.finished = 0.0
        self.waited = False


class Collector:
    """The answers of this process. Safe for threads; a forked child starts with none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, Hashable], _Entry] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget everything: answers, and threads that a fork left behind."""
        self._lock = threading.Lock()
        self._entries = {}

    def start(self, jobs: list[Job]) -> None:
        """Have the jobs begin that are not there yet, while the caller does something else."""
        for job in jobs:
            self._entry(job)

    def collect(self, jobs: list[Job], deadline: float, *, patient: bool = False) -> Mapping[str, Found]:
        """The answers by the jobs' names, without those that are not there in time.

        Args:
            jobs: what to ask; those that are not there yet are started.
            deadline: seconds to wait, for all jobs together, where a job was not waited for before.
            patient: wait also for jobs that missed an earlier deadline.
        """
        end = time.monotonic() + deadline
        asked = [(job, self._entry(job)) for job in jobs]
        found: dict[str, Found] = {}
        for job, entry in asked:
            if not entry.done.is_set() and (patient or not entry.waited):
                entry.done.wait(max(0.0, end - time.monotonic()))
                entry.waited = True
                if not entry.done.is_set():
                    debug("%s is not ready after %g s; it comes with a later run", job.name, deadline)
            if entry.done.is_set():
                found[job.name] = entry.found
        return found

    def _entry(self, job: Job) -> _Entry:
        place = (job.name, job.key)
        with self._lock:
            entry = self._entries.get(place)
            if entry and not (entry.done.is_set() and time.monotonic() - entry.finished > job.max_age):
                return entry
            self._make_room()
            entry = self._entries[place] = _Entry()
        try:
            threading.Thread(target=_work, args=(job, entry), name=f"run-context {job.name}", daemon=True).start()
        except RuntimeError as exc:  # no more threads, or the interpreter is ending
            debug("%s cannot be asked: %s", job.name, exc)
            entry.finished = time.monotonic()
            entry.done.set()
        return entry

    def _make_room(self) -> None:
        while len(self._entries) >= _MOST_ENTRIES:
            del self._entries[next(iter(self._entries))]


def _work(job: Job, entry: _Entry) -> None:
    try:
        entry.found = job.ask()
    except Exception as exc:  # noqa: BLE001 # nothing that a source meets may reach a training script
        debug("%s gives no tags: %s: %s", job.name, type(exc).__name__, exc)
    entry.finished = time.monotonic()
    entry.done.set()
