"""Where a deployment keeps its state: one folder, plain files, written so that a crash leaves the old or the new one.

`spec.json` says what is wanted and is written by clients, `status.json` says what is and is written by the
supervisor. Standard library only.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

RUNNING, STOPPED, DELETED = "running", "stopped", "deleted"
STARTING, READY, DEGRADED, FAILED = "starting", "ready", "degraded", "failed"


@dataclass(frozen=True)
class Spec:
    """What is wanted.

    Attributes:
        generation: grows with each change; the status names the one that it speaks of.
        revision: the folder below `revisions` that says what the workers run.
        workers, standby: how many workers serve, and how many wait with the model loaded.
        port: 0 lets the system choose, once; the status has the one that was chosen.
        start_seconds: how long a worker may take until it is ready.
        drain_seconds: how long requests may take that were begun before a worker was told to end.
        hang_seconds: a worker that does not answer for so long is replaced; 0 never.
        shown: what `get_deployment` shows besides.
    """

    name: str
    kind: Literal["deployment", "endpoint"]
    generation: int
    revision: str
    workers: int
    standby: int
    host: str
    port: int
    start_seconds: float
    drain_seconds: float
    hang_seconds: float
    desired: str = RUNNING
    shown: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """What is.

    Attributes:
        generation: the spec's generation that this speaks of.
        phase: `starting`, `ready`, `degraded` (fewer workers than wanted), `failed` (the generation was given
            up; what served before still does) or `stopped`.
        error: why it failed, or why the last worker ended.
        revision: what serves.
        restarts: workers that were replaced since the deployment was made.
        leaving: workers of an earlier revision that still answer what they had begun.
    """

    generation: int
    phase: str
    host: str
    port: int
    revision: str = ""
    error: str = ""
    restarts: int = 0
    leaving: int = 0
    supervisor_pid: int = 0

    @property
    def url(self) -> str:
        """Where it listens. A wildcard address is reached through loopback."""
        return f"http://{address_of(self.host)}:{self.port}"


def address_of(host: str) -> str:
    """A host as it stands in a URL for a client on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 # compared, not bound
    return f"[{host}]" if ":" in host else host


class Place:
    """The folder of one deployment or endpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec_file = folder / "spec.json"
        self.active_file = folder / "active.json"
        self.status_file = folder / "status.json"
        self.supervisor_lock = folder / "supervisor.lock"
        self.launcher_file = folder / "launcher.json"
        self.token_file = folder / "token"
        self.totals_file = folder / "totals.json"
        self.workers = folder / "workers"
        self.revisions = folder / "revisions"
        self.logs = folder / "logs"

    @property
    def name(self) -> str:
        """The deployment's name."""
        return self.folder.name

    def make(self) -> None:
        """Make the folders, for this user alone."""
        for folder in (self.folder, self.workers, self.revisions, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def spec(self) -> Spec | None:
        """What is wanted, None where nothing was deployed."""
        return _read(self.spec_file, Spec)

    def active(self) -> Spec | None:
        """The last spec that became ready: what runs when a later one fails."""
        return _read(self.active_file, Spec)

    def status(self) -> Status | None:
        """What is, None where no supervisor has written it yet."""
        return _read(self.status_file, Status)

    def revision(self, revision: str) -> dict[str, Any]:
        """What the workers of a revision run."""
        found: dict[str, Any] = json.loads(self.revision_file(revision).read_text(encoding="utf-8"))
        return found

    def revision_file(self, revision: str) -> Path:
        """Where it is described."""
        return self.revisions / revision / "revision.json"

    def token(self) -> str:
        """What this user's own processes show instead of the API key."""
        return self.token_file.read_text(encoding="ascii")


def _read(file: Path, cls: type[T]) -> T | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type] # Spec and Status
    return cls(**{name: value for name, value in found.items() if name in known})


def write(file: Path, content: dict[str, Any] | Spec | Status) -> None:
    """Replace a JSON file, for this user alone: readers see the old or the new one, also after a power cut."""
    data = content if isinstance(content, dict) else dataclasses.asdict(content)
    write_text(file, json.dumps(data, indent=1) + "\n")


def write_text(file: Path, text: str) -> None:
    """The same for text."""
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(draft, file)


def try_lock(path: Path) -> int | None:
    """Take a lock that lives as long as the returned descriptor and its copies; None where another has it.

    Raises:
        FileNotFoundError: the folder is gone.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return fd


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for a block; waits for whoever has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
