"""A worker's page: a small file in shared memory through which worker and supervisor tell each other what is.

The supervisor creates the file, the worker holds a lock on it as long as it lives. So a worker that is gone is
known by the kernel releasing the lock, whatever its process id means by then, and whoever supervises it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from enum import IntEnum
from pathlib import Path

MAGIC = 0x6D6C6431
COUNTERS = 256


class State(IntEnum):
    """Where a worker is; written by the worker."""

    STARTING = 0
    LOADING = 1
    STANDBY = 2
    SERVING = 3
    DRAINING = 4
    FAILED = 5


class Command(IntEnum):
    """What a worker is to do; written by the supervisor. The higher one wins."""

    WAIT = 0
    SERVE = 1
    DRAIN = 2


class Page(ctypes.Structure):
    """What the file holds.

    Times are seconds of the monotonic clock, which all processes since the last boot share.
    """

    _fields_ = [
        ("magic", ctypes.c_int64),
        ("pid", ctypes.c_int64),
        ("state", ctypes.c_int64),
        ("command", ctypes.c_int64),
        ("connections", ctypes.c_int64),
        ("in_flight", ctypes.c_int64),
        ("created", ctypes.c_double),
        ("heartbeat", ctypes.c_double),
        ("load_seconds", ctypes.c_double),
        ("drain_since", ctypes.c_double),
        ("error", ctypes.c_char * 4000),
        ("counters", ctypes.c_double * COUNTERS),
    ]


class Slot:
    """An open page. Its file's name is the worker's id, `<revision>.<number>`."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            FileNotFoundError: there is no such worker any more.
        """
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # A mapping keeps a copy of its descriptor, and with it a lock: the lock is on another one.
        mapped = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.page = Page.from_buffer(mmap.mmap(mapped, ctypes.sizeof(Page)))
        finally:
            os.close(mapped)

    @classmethod
    def create(cls, path: Path, now: float) -> Slot:
        """Make the page of a worker that is about to start. It appears complete or not at all."""
        fresh = Page(magic=MAGIC, created=now, heartbeat=now)
        draft = path.with_name(f".{path.name}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(bytes(fresh))
        draft.rename(path)
        return cls(path)

    @property
    def id(self) -> str:
        """The worker's id."""
        return self.path.name

    @property
    def revision(self) -> str:
        """What the worker runs."""
        return self.path.name.rpartition(".")[0]

    def occupy(self) -> None:
        """Take the page for this process, for as long as it lives.

        Raises:
            FileNotFoundError: the supervisor has given this worker up in the meantime.
        """
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        if not self._is_current():
            raise FileNotFoundError(str(self.path))
        self.page.pid = os.getpid()

    def is_occupied(self) -> bool:
        """Whether its worker lives."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return False

    def discard(self) -> bool:
        """Remove the page unless a worker holds it; a worker that comes too late ends itself."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._is_current():
            self.path.unlink()
        self.close()
        return True

    def close(self) -> None:
        """Close the file; the mapping goes with the last reference to the page."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except FileNotFoundError:
            return False


def read_page(path: Path) -> Page | None:
    """A copy of a page as it is now, None where it is gone or half a file."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) != ctypes.sizeof(Page):
        return None
    return Page.from_buffer_copy(data)


def slot_files(folder: Path) -> list[Path]:
    """The pages in a folder, in the order of their names."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except FileNotFoundError:
        return []
