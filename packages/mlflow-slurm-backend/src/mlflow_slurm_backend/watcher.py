"""Watching all jobs of the process: one thread, one ladder, and as few status calls as possible."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow_plugkit.logs import get_logger
from mlflow_slurm_backend.commands import STATUS_INTERVAL, Slurm, command_environment
from mlflow_slurm_backend.ladder import Ladder
from mlflow_slurm_backend.states import SUBMITTED, JobState, Observation, went_back

TICK = 0.25
"""Seconds between two looks for up to 50 exit-code files, which are no call to Slurm but load a shared file system."""
_logger = get_logger("mlflow_slurm_backend")


@dataclass(eq=False)
class Watched:
    """A job or a task of an array that is being watched.

    Attributes:
        slurm_id: Slurm's id.
        exit_file: where the job script leaves the exit code.
        requeue: whether it may be queued again.
        on_change: called with each new observation, in a thread of the watcher's pool, in order.
        seen: the latest observation.
        doubted: an end that the next look has to confirm.
        told: the latest one that `on_change` has dealt with.
        asked: set when Slurm has been asked once.
        recorded: set when `on_change` has returned for the one that ended it.
    """

    slurm_id: str
    exit_file: Path
    requeue: bool
    on_change: Callable[[Observation], None]
    seen: Observation = SUBMITTED
    doubted: JobState | None = None
    told: Observation = SUBMITTED
    asked: threading.Event = field(default_factory=threading.Event)
    recorded: threading.Event = field(default_factory=threading.Event)
    order: threading.Lock = field(default_factory=threading.Lock)
    pending: list[Observation] = field(default_factory=list)


class Watcher:
    """Watches until nothing is left. Its threads start with the first job and end with the last one."""

    def __init__(self, slurm: Slurm, longest_interval: float = 30.0) -> None:
        self.slurm = slurm
        self.longest_interval = max(longest_interval, STATUS_INTERVAL)
        self._ladder = Ladder(slurm)
        self._lock = threading.Lock()
        self._active: list[Watched] = []
        self._thread: threading.Thread | None = None
        self._poked = False
        self._changed_at = 0.0
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="mlflow-slurm-record")

    def watch(self, jobs: Iterable[Watched]) -> None:
        """Watch these, too, until each has ended and that has been recorded."""
        with self._lock:
            self._active.extend(jobs)
            self._changed_at = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mlflow-slurm-watcher", daemon=True)
                self._thread.start()

    def poke(self) -> None:
        """Ask for the status soon: as soon as the throttle lets the call pass."""
        self._poked = True

    def _run(self) -> None:
        asked_at = -self.longest_interval
        while True:
            with self._lock:
                active = list(self._active)
                if not active:
                    self._thread = None
                    return
            exits = any(job.exit_file.exists() for job in active)
            interval = STATUS_INTERVAL if exits or self._poked else self._interval()
            if time.monotonic() - asked_at < interval:
                time.sleep(max(TICK, len(active) * TICK / 50))
                continue
            self._poked = False
            try:
                self._round(active)
            except Exception:
                if not threading.main_thread().is_alive():
                    return  # the interpreter ends, and takes no more work
                # The thread serves every job of the process: a fault in one round must not end it.
                _logger.exception("Asking for the status of %d jobs failed; trying again", len(active))
            asked_at = time.monotonic()

    def _interval(self) -> float:
        """Short after a change, then longer: a twentieth of the time since."""
        since = time.monotonic() - self._changed_at
        return min(max(STATUS_INTERVAL, since / 20), self.longest_interval)

    def _round(self, active: list[Watched]) -> None:
        may_requeue = {job.slurm_id for job in active if job.requeue}
        found = self._ladder.ask({job.slurm_id: job.exit_file for job in active}, may_requeue)
        for job in active:
            seen = found.get(job.slurm_id, job.seen).after(job.seen)
            if job.requeue and seen.source != "scontrol" and went_back(job.seen, seen):
                seen = replace(seen, restarts=job.seen.restarts + 1)  # accounting does not count them
            changed = (seen.state, seen.nodes, seen.restarts) != (job.seen.state, job.seen.nodes, job.seen.restarts)
            if job.requeue and seen.ended and seen.state.status != "FINISHED" and job.doubted != seen.state:
                job.doubted = seen.state  # on its way back to the queue a job shows this for a moment
                continue
            job.doubted = None
            job.seen = seen
            job.asked.set()
            if changed or seen.ended:
                _logger.debug("Slurm job %s: %s", job.slurm_id, seen)
                self._changed_at = time.monotonic()
                with self._lock:
                    if seen.ended:
                        self._active.remove(job)
                job.pending.append(seen)
                self._pool.submit(_tell, job)


def _tell(job: Watched) -> None:
    """Hand over the oldest observation; the lock keeps the order, though the pool has several threads."""
    with job.order:
        seen = job.pending.pop(0)
        try:
            job.on_change(seen)
        except Exception:
            # Whatever recording ran into (a tracking server that is down), waiting for the job must end.
            _logger.exception("Recording the state %s of Slurm job %s failed", seen.state.name, job.slurm_id)
        finally:
            if seen.ended:
                job.recorded.set()


_watchers: dict[tuple[tuple[str, str], ...], Watcher] = {}
_watchers_lock = threading.Lock()


def watcher(longest_interval: float = 30.0) -> Watcher:
    """The watcher of this process for the cluster that the environment leads to."""
    with _watchers_lock:
        cluster = tuple(sorted(command_environment(os.environ).items()))
        if cluster not in _watchers:
            _watchers[cluster] = Watcher(Slurm(os.environ), longest_interval)
        _watchers[cluster].longest_interval = max(longest_interval, STATUS_INTERVAL)
        return _watchers[cluster]


def _forget_after_fork() -> None:
    global _watchers_lock
    _watchers.clear()  # a child has none of its parent's threads
    _watchers_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
