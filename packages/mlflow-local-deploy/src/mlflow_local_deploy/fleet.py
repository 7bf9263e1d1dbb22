"""The workers of one deployment: starting them, seeing how they are, ending them.

A worker is signalled only while it holds its page, and through psutil, which compares the start time: never a
process that merely got the same id.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # its stubs are a package of their own

from mlflow_local_deploy.counting import Totals
from mlflow_local_deploy.place import Place
from mlflow_local_deploy.plan import Seen
from mlflow_local_deploy.slots import Command, Slot, State, slot_files
from mlflow_local_deploy.succession import environment

BOOT = Path(__file__).parent / "serving" / "boot.py"


@dataclass(frozen=True)
class Gone:
    """A worker that has ended.

    Attributes:
        code: its exit code, negative for a signal; None where an earlier supervisor started it.
        expected: whether it had been told to end.
    """

    id: str
    revision: str
    state: State
    code: int | None
    error: str
    expected: bool
    age: float


class Fleet:
    """The workers below a place. One supervisor at a time has it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._slots: dict[str, Slot] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._adopted: dict[str, psutil.Process] = {}
        self._ended: set[str] = set()
        self._totals = Totals(place.totals_file)

    def adopt(self) -> int:
        """Take over the workers of an earlier supervisor; returns how many live."""
        for file in slot_files(self._place.workers):
            slot = Slot(file)
            if not slot.page.pid and slot.discard():
                continue  # not started yet: it ends itself when it finds no page
            self._slots[slot.id] = slot
            if slot.is_occupied():
                with suppress(psutil.NoSuchProcess):
                    self._adopted[slot.id] = psutil.Process(slot.page.pid)
        return len(self._adopted)

    def start(self, revision: str, listen_fd: int) -> str:
        """Start a worker; returns its id.

        Raises:
            OSError: its Python cannot be started.
        """
        about = self._place.revision(revision)
        identity = f"{revision}.{secrets.token_hex(3)}"
        slot = Slot.create(self._place.workers / identity, time.monotonic())
        self._slots[identity] = slot
        command = [*about["command"], str(BOOT), str(self._place.folder), identity, str(listen_fd)]
        log = os.open(
            self._place.logs / f"{identity}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            self._children[identity] = subprocess.Popen(
                command,
                env={**environment(), "PYTHONUNBUFFERED": "1", **about["environment"]},
                cwd=self._place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listen_fd],
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:  # ValueError: a variable's name or value that no process can have
            slot.page.state = State.FAILED
            slot.page.error = f"{command[0]}: {getattr(exc, 'strerror', None) or exc}".encode()[:3999]
        finally:
            os.close(log)
        return identity

    def command(self, identity: str, command: Command) -> None:
        """Tell a worker to serve, or to finish what it has begun and end."""
        page = self._slots[identity].page
        if command is Command.DRAIN:
            self._ended.add(identity)
            page.drain_since = page.drain_since or time.monotonic()
        page.command = max(page.command, command)

    def kill(self, identity: str) -> None:
        """End a worker now."""
        self._ended.add(identity)
        child, slot = self._children.get(identity), self._slots[identity]
        if child:
            child.kill()
        elif slot.is_occupied() and identity in self._adopted:
            with suppress(psutil.NoSuchProcess):
                self._adopted[identity].kill()

    def observe(self) -> tuple[list[Seen], list[Gone]]:
        """The workers that live, and those that have ended since the last time."""
        now = time.monotonic()
        seen, gone = [], []
        for identity, slot in list(self._slots.items()):
            page = slot.page
            if self._lives(identity):
                seen.append(_seen(slot, now))
            else:
                gone.append(self._bury(identity, State(page.state), now))
        return seen, gone

    def pids(self) -> list[int]:
        """The process ids of the workers, for the log."""
        return [slot.page.pid for slot in self._slots.values() if slot.page.pid]

    def _lives(self, identity: str) -> bool:
        slot, child = self._slots[identity], self._children.get(identity)
        if slot.page.pid or child is None:
            return slot.is_occupied()
        return child.poll() is None

    def _bury(self, identity: str, state: State, now: float) -> Gone:
        slot, child = self._slots.pop(identity), self._children.pop(identity, None)
        page, error = slot.page, slot.page.error.decode("utf-8", errors="replace")
        if page.pid:
            # While its child is not waited for, the system gives its id to no other process.
            _end_group(page.pid, leader_is_ours=child is not None and child.returncode is None)
        code = child.wait() if child else None
        self._adopted.pop(identity, None)
        self._totals.add(identity, list(page.counters))
        expected = identity in self._ended or page.command == Command.DRAIN
        self._ended.discard(identity)
        gone = Gone(identity, slot.revision, state, code, error, expected, now - page.created)
        del page
        slot.discard()
        return gone


def _seen(slot: Slot, now: float) -> Seen:
    page = slot.page
    return Seen(
        id=slot.id,
        revision=slot.revision,
        state=State(page.state),
        command=Command(page.command),
        age=now - page.created,
        draining=now - page.drain_since if page.drain_since else 0.0,
        silent=now - page.heartbeat,
    )


def _end_group(leader: int, *, leader_is_ours: bool) -> None:
    """End what a worker that is gone has left behind: it was the leader of its own process group."""
    if leader_is_ours:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        return
    if psutil.pid_exists(leader):
        return  # the id has a new owner, or the leader is not reaped yet and its group with it
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == leader:
                process.kill()


def describe(gone: Gone) -> dict[str, Any]:
    """A worker's end in words, for the log and the status."""
    if gone.error:
        reason = gone.error
    elif gone.code is not None and gone.code < 0:
        reason = f"it was ended by {signal.Signals(-gone.code).name}"
    elif gone.code is not None:
        reason = f"it ended with exit code {gone.code}"
    else:
        reason = "it ended"
    return {"worker": gone.id, "reason": reason}
