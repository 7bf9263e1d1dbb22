"""The supervisor of the subprocess that runs plugin code: starts it, asks it, ends what hangs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_plugkit.doctor.installed import PluginEntryPoint

MLFLOW_IMPORT_SECONDS = 180.0
# The current folder is taken off the path: a user's `mlflow` command has it not, either.
_START = "import sys; sys.path[:] = [p for p in sys.path if p]; from mlflow_plugkit.doctor.child import main; main()"
# Forking a process that has imported MLflow is dependable on Linux only.
CAN_FORK = sys.platform == "linux"


@dataclass
class EntryResult:
    """What came of loading one entry point.

    Attributes:
        failure: the exception as `child.describe` gives it, with its stage; None if it loaded.
        ended: "" or why there is no result: "hangs", or "killed by signal 11", "exit status 3".
        problems: (rule id, detail) pairs from `inspection`.
        facts: what `inspection` learned: auth_name, headers.
        attempts: addresses to which a connection was tried.
        cpu_ms, wall_ms: cost of loading; None where it was not measured.
    """

    failure: dict[str, Any] | None = None
    ended: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)
    cpu_ms: float | None = None
    wall_ms: float | None = None


class Probe:
    """A subprocess of this interpreter that runs `child.main`. A context manager: leaving it ends the process.

    Args:
        request: the first line sent, with its `mode`.
        env: additions to this process's environment.
    """

    def __init__(self, request: Mapping[str, Any], env: Mapping[str, str] | None = None) -> None:
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **quiet, **(env or {})},
            start_new_session=True,
        )
        self.alive = True
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()
        self.send(request)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line; a process that has ended is noticed on the next `receive`."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write((json.dumps(message) + "\n").encode())
            self._process.stdin.flush()

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next event; None where the process has ended.

        Raises:
            TimeoutError: nothing came in time.
        """
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None

    def kill(self) -> None:
        """End the process and, where the platform knows sessions, whatever it started."""
        self.alive = False
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()

    def exit_text(self) -> str:
        """How the process ended."""
        return _status_text(self._process.wait())

    def _pump(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._events.put(json.loads(line))
        self._events.put(None)


class Examiner:
    """Loads entry points in a probe that has imported MLflow without plugins.

    Args:
        groups: for which groups MLflow's own names are wanted.
        passed: see `inspection.inspect_object`.
        seconds: time limit for each entry point.

    Attributes:
        failure: why MLflow could not be imported (as `child.describe`), or None.
        eager: the groups that this MLflow loads at import.
        builtins: MLflow's own names by group.
    """

    def __init__(self, groups: Iterable[str], passed: Mapping[str, Sequence[str]], seconds: float) -> None:
        self._request = {"mode": "examine", "groups": sorted(groups)}
        self._inspect = {k: list(v) for k, v in passed.items()}
        self._seconds = seconds
        self.failure: dict[str, Any] | None = None
        self.eager: frozenset[str] = frozenset()
        self.builtins: dict[str, list[str]] = {}
        self._probe: Probe | None = Probe(self._request)

    def __enter__(self) -> Examiner:
        assert self._probe is not None
        self._await_mlflow(self._probe)
        return self

    def __exit__(self, *_: object) -> None:
        if self._probe:
            self._probe.kill()

    def examine(self, entries: Sequence[PluginEntryPoint]) -> list[EntryResult]:
        """Load the entry points of one plugin, in order, in one process; one that ends it is noted and left out."""
        results: list[EntryResult] = [EntryResult() for _ in entries]
        waiting = list(range(len(entries)))
        while waiting:
            ended = self._run(entries, waiting, results, fork=CAN_FORK)
            if ended is None:
                break
            if CAN_FORK:
                # A forked child may fail for reasons of its own: only a fresh process convicts.
                self._run(entries, [ended], results, fork=False)
            waiting = waiting[waiting.index(ended) + 1 :]
        return results

    def _run(
        self, entries: Sequence[PluginEntryPoint], wanted: list[int], results: list[EntryResult], *, fork: bool
    ) -> int | None:
        """Run one job; returns the index of the entry point that ended its process, None if none did."""
        if not fork and CAN_FORK:
            with Probe(self._request) as probe:
                self._await_mlflow(probe)
                return self._follow(probe, entries, wanted, results, fork=False)
        if self._probe is None:
            self._probe = Probe(self._request)
            self._await_mlflow(self._probe)
        ended = self._follow(self._probe, entries, wanted, results, fork=fork)
        if not fork:  # the modules of one plugin must not be there already for the next
            self._probe.kill()
        if not self._probe.alive:
            self._probe = None
        return ended

    def _follow(
        self,
        probe: Probe,
        entries: Sequence[PluginEntryPoint],
        wanted: list[int],
        results: list[EntryResult],
        *,
        fork: bool,
    ) -> int | None:
        jobs = [{"group": entries[i].group, "name": entries[i].name, "object": entries[i].object} for i in wanted]
        probe.send({"entries": jobs, "fork": fork, "inspect": self._inspect})
        pid, current, hung = None, wanted[0], False
        while True:
            try:
                event = probe.receive(self._seconds)
            except TimeoutError:
                if pid is None or hung:
                    probe.kill()
                    results[current] = EntryResult(ended="hangs")
                    return current
                hung = True
                os.kill(pid, signal.SIGKILL)
                continue
            if event is None:
                results[current] = EntryResult(ended=probe.exit_text())
                probe.kill()
                return current
            if event["event"] == "forked":
                pid = event["pid"]
            elif event["event"] == "start":
                current = wanted[event["entry"]]
            elif event["event"] == "entry":
                results[current] = _result(event)
            elif event["event"] == "end":
                if hung:
                    results[current] = EntryResult(ended="hangs")
                elif event["status"]:
                    results[current] = EntryResult(ended=_status_text(os.waitstatus_to_exitcode(event["status"])))
                return current if hung or event["status"] else None

    def _await_mlflow(self, probe: Probe) -> None:
        try:
            event = probe.receive(MLFLOW_IMPORT_SECONDS)
        except TimeoutError:
            text = f"it did not end within {MLFLOW_IMPORT_SECONDS:.0f} s"
            event = {"event": "failed", "type": "TimeoutError", "text": text}
        if event is None:
            event = {"event": "failed", "type": "SystemExit", "text": f"the process ended ({probe.exit_text()})"}
        if event["event"] == "failed":
            self.failure = event
            return
        self.eager = frozenset(event["eager"])
        self.builtins = event["builtins"]


def import_with_plugins() -> Probe:
    """Start a probe that imports MLflow as a user would; its event is "ready" or "failed"."""
    return Probe({"mode": "import"})


def _result(event: dict[str, Any]) -> EntryResult:
    return EntryResult(
        failure=event["failure"],
        problems=[(rule, detail) for rule, detail in event["problems"]],
        facts=event["facts"],
        attempts=event["attempts"],
        cpu_ms=event["cpu_ms"],
        wall_ms=event["wall_ms"],
    )


def _status_text(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
