"""The supervisor of one deployment: makes what is be what is wanted, ten times a second.

It holds the listening socket but accepts nothing: workers accept from it themselves, so that it costs a request
nothing, and connections wait in the socket's queue while a worker is replaced. When it is killed, the workers serve on
and one of them starts another supervisor (`succession`), which takes them over. Standard library and psutil only.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlflow_local_deploy import logs, place
from mlflow_local_deploy.fleet import Fleet, Gone, describe
from mlflow_local_deploy.place import Place, Spec, Status
from mlflow_local_deploy.plan import Action, Seen, Wanted, plan
from mlflow_local_deploy.slots import Command, State

ROUND_SECONDS = 0.1
HOUSEKEEPING_SECONDS = 5.0
BACKLOG = 2048
#: How long a new supervisor waits for the address that callers know, which a worker that ends may still hold.
ADDRESS_SECONDS = 10.0
#: A worker that was killed before it was ready may be the work of a passing lack of memory: it is tried again.
ATTEMPTS = 3
LONGEST_BACKOFF_SECONDS = 30.0
#: A worker that ends so soon after its start counts as one that crashes again and again.
YOUNG_SECONDS = 10.0

_log = logging.getLogger("mlflow_local_deploy.supervisor")


class Supervisor:
    """One deployment's supervisor; the caller holds its lock."""

    def __init__(self, home: Place, listener: socket.socket | None = None) -> None:
        self._place, self._listener = home, listener
        self._fleet = Fleet(home)
        self._spec_seen: os.stat_result | None = None
        self._spec: Spec | None = None
        self._active = home.active()
        self._status = home.status() or Status(0, place.STARTING, "", 0)
        self._failed: dict[int, str] = {}
        self._attempts: dict[str, int] = {}
        self._crashes = 0
        self._not_before = self._bind_after = self._tidied = 0.0
        self._patient_until = time.monotonic() + ADDRESS_SECONDS
        self._reasons: dict[str, str] = {}
        self._stopping = False

    def stop(self) -> None:
        """End the workers, then this; what is wanted stays as it is."""
        self._stopping = True

    def run(self) -> None:
        """Supervise until the deployment is deleted or stopped, or `stop` was called."""
        adopted = self._fleet.adopt()
        _log.info("supervising %s, with %d workers that were there", self._place.name, adopted)
        with _wakeup() as wake:
            while self.round():
                select.select([wake], [], [], ROUND_SECONDS)
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
        _log.info("done")

    def round(self) -> bool:
        """Look, decide, act; False when there is nothing left to do."""
        self._read_spec()
        seen, gone = self._fleet.observe()
        for worker in gone:
            self._mourn(worker)
        effective = self._effective()
        # Workers that an earlier supervisor started listen on a socket that this one lacks: they end first.
        if effective and self._listener is None and not seen:
            self._bind(effective)
        wanted = _wanted_of(effective) if effective and self._listener else None
        replaced = self._active if effective and self._active and self._active.revision != effective.revision else None
        keep = _wanted_of(replaced) if replaced else None
        may_start = time.monotonic() >= self._not_before
        limits = _wanted_of(self._spec) if self._spec else None
        for action in plan(wanted, seen, keep=keep, may_start=may_start, limits=limits):
            self._perform(action)
        self._report(effective, seen)
        if time.monotonic() > self._tidied + HOUSEKEEPING_SECONDS:
            self._tidied = time.monotonic()
            logs.keep_in_bounds(self._place.logs, {w.id for w in seen})
        return bool(seen) or not self._is_over()

    def _is_over(self) -> bool:
        return self._stopping or self._spec is None or self._spec.desired != place.RUNNING

    def _read_spec(self) -> None:
        try:
            seen = self._place.spec_file.stat()
        except FileNotFoundError:
            self._spec = None
            return
        if not self._spec_seen or (seen.st_ino, seen.st_mtime_ns) != (
            self._spec_seen.st_ino,
            self._spec_seen.st_mtime_ns,
        ):
            self._spec_seen, self._spec = seen, self._place.spec()
            self._not_before = self._bind_after = 0.0

    def _effective(self) -> Spec | None:
        """What the workers are to be: the spec, or what served before it where it has failed."""
        if self._is_over() or self._spec is None:
            return None
        return self._active if self._spec.generation in self._failed else self._spec

    def _bind(self, spec: Spec) -> None:
        if time.monotonic() < self._bind_after:
            return
        remembered = self._status.port if self._status.host == spec.host and not spec.port else spec.port
        try:
            self._listener = _bound(spec.host, remembered)
        except OSError as exc:
            if remembered and not spec.port and time.monotonic() < self._patient_until:
                self._bind_after = time.monotonic() + ROUND_SECONDS
                return
            if remembered and not spec.port:
                _log.warning("port %d has a new owner, another one is chosen: %s", remembered, exc)
                self._status = _changed(self._status, port=0)
                return
            self._bind_after = time.monotonic() + 1.0
            error = f"cannot listen on {spec.host}:{spec.port}: {exc.strerror or exc}"
            if self._active is None:
                self._failed[spec.generation] = error
            self._status = _changed(self._status, error=error)
            return
        host, port = self._listener.getsockname()[:2]
        self._status = _changed(self._status, host=spec.host, port=port, error="")
        _log.info("bound to %s:%d", host, port)

    def _perform(self, action: Action) -> None:
        if action.why:
            _log.warning("worker %s: %s", action.id, action.why)
            self._reasons[action.id] = action.why
        if action.what == "start" and self._listener is not None:
            self._start(action.id, self._listener)
        elif action.what == "serve" and self._listener is not None:
            self._listener.listen(BACKLOG)
            self._fleet.command(action.id, Command.SERVE)
        elif action.what == "drain":
            self._fleet.command(action.id, Command.DRAIN)
        elif action.what == "kill":
            self._fleet.kill(action.id)

    def _start(self, revision: str, listener: socket.socket) -> None:
        try:
            _log.info("started %s", self._fleet.start(revision, listener.fileno()))
        except OSError as exc:  # no space, no process, no descriptor left: it may pass
            _log.error("cannot start a worker: %s", exc)
            self._not_before = time.monotonic() + 1.0

    def _mourn(self, gone: Gone) -> None:
        overdue = self._reasons.pop(gone.id, "")
        reason = overdue or str(describe(gone)["reason"])
        _log.info("worker %s ended (%s): %s", gone.id, gone.state.name.lower(), reason)
        if self._spec is None or (gone.expected and not overdue):
            return
        was_ready = gone.state in (State.STANDBY, State.SERVING, State.DRAINING)
        if gone.revision == self._spec.revision and (self._active is None or self._active.revision != gone.revision):
            if not was_ready:
                self._count_failure(gone, self._spec, reason, final=bool(overdue))
            return
        restarts = self._status.restarts + 1
        self._status = _changed(self._status, restarts=restarts, error=f"a worker was replaced: {reason}")
        self._crashes = self._crashes + 1 if not was_ready or gone.age < YOUNG_SECONDS else 0
        pause = min(0.5 * 2 ** (self._crashes - 1), LONGEST_BACKOFF_SECONDS) if self._crashes else 0.0
        self._not_before = time.monotonic() + pause

    def _count_failure(self, gone: Gone, spec: Spec, reason: str, *, final: bool) -> None:
        self._attempts[gone.revision] = self._attempts.get(gone.revision, 0) + 1
        was_killed = gone.state is not State.FAILED and (gone.code is None or gone.code < 0)
        if final or not was_killed or self._attempts[gone.revision] >= ATTEMPTS:
            self._failed[spec.generation] = reason

    def _report(self, effective: Spec | None, seen: list[Seen]) -> None:
        spec, before = self._spec, self._status
        serving = [w for w in seen if w.serves and w.state is State.SERVING]
        leaving = sum(not spec or w.revision != spec.revision for w in seen)
        now = _changed(before, leaving=leaving, supervisor_pid=os.getpid())
        if spec:
            now = _changed(now, generation=spec.generation, phase=self._phase(spec, effective, serving, seen))
            if now.phase == place.FAILED:
                now = _changed(now, error=self._failed[spec.generation])
            elif now.phase == place.READY and now.generation != before.generation:
                now = _changed(now, error="")
        if effective and sum(w.revision == effective.revision for w in serving) >= effective.workers:
            now = _changed(now, revision=effective.revision)
            if now.phase == place.READY and self._active != effective:
                self._active = effective
                place.write(self._place.active_file, effective)
        if now != before or before.generation == 0:
            self._status = now
            self._publish()

    def _phase(self, spec: Spec, effective: Spec | None, serving: list[Seen], seen: list[Seen]) -> str:
        if spec.generation in self._failed:
            return place.FAILED
        if effective is None:
            return place.STOPPED if not seen else self._status.phase
        mine = [w for w in seen if w.revision == spec.revision]
        if sum(w in serving for w in mine) >= spec.workers and sum(w.waits for w in mine) >= spec.standby:
            return place.READY
        return place.DEGRADED if self._active and self._active.revision == spec.revision else place.STARTING

    def _publish(self) -> None:
        try:
            place.write(self._place.status_file, self._status)
        except FileNotFoundError:
            pass  # the folder was removed: the next round sees that there is no spec
        except OSError as exc:
            _log.error("cannot write the status: %s", exc)


def _wanted_of(spec: Spec) -> Wanted:
    return Wanted(spec.revision, spec.workers, spec.standby, spec.start_seconds, spec.drain_seconds, spec.hang_seconds)


def _changed(status: Status, **changes: object) -> Status:
    return Status(**{**status.__dict__, **changes})  # type: ignore[arg-type] # the callers' values have the fields' types


def _bound(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class _wakeup:  # noqa: N801 # a context manager, used as a function
    """A descriptor that becomes readable when a signal arrives, such as that of a child's end."""

    def __enter__(self) -> int:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return self._read

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def main() -> None:
    """What `succession.launch` starts: folder, descriptor of the lock, and of the listening socket if there is one."""
    folder, lock_fd, *listen_fd = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    os.set_inheritable(int(lock_fd), False)
    listener = None
    if listen_fd:
        listener = socket.socket(fileno=int(listen_fd[0]))
        listener.set_inheritable(False)
    supervisor = Supervisor(Place(Path(folder)), listener)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run()
