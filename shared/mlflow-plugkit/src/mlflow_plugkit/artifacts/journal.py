"""The local journal of unfinished uploads: what a later attempt resumes, or a later run aborts.

One small JSON file for each upload in parts, in the user's state folder (`MLFLOW_PLUGKIT_STATE_DIR` overrides
it), readable by the user alone. It holds no secret: a location with one is left out. Where the folder
cannot be written, uploads work without a journal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlflow_plugkit.artifacts.backend import Source
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.uri import redact_uri

STATE_VARIABLE = "MLFLOW_PLUGKIT_STATE_DIR"

#: Seconds after which an entry of another machine, whose processes cannot be seen from here, counts as left behind.
STRANGERS_AGE = 7 * 24 * 3600

#: Seconds until an upload that could not be aborted twice is tried again; doubled with each failure, up to a week.
RETRY_AGE = 60

logger = get_logger(__name__)


@dataclass(frozen=True)
class Entry:
    """One unfinished upload.

    Attributes:
        kind: the class of repository that made it.
        location: the repository's URI, from which another process can open it again; "" where it holds a secret.
        root, path, upload_id: where it is; the id is "" while the upload is being created.
        part_size: bytes of each part but the last.
        source: what `fingerprint` says of the file; "" for a stream, which cannot be resumed.
        owner: the process that works on it.
        started: seconds since the epoch.
        idle: its owner gave up after a lost connection, so that anybody may resume it.
        failures: how often it could not be aborted.
        not_before: seconds since the epoch until which nobody tries to abort it again.
        file: where the entry is kept.
    """

    kind: str
    location: str
    root: str
    path: str
    upload_id: str
    part_size: int
    source: str
    owner: tuple[str, int, float]
    started: float
    idle: bool = False
    failures: int = 0
    not_before: float = 0.0
    file: Path | None = field(default=None, compare=False)

    def is_left_behind(self) -> bool:
        """Whether nobody works on it any more: its process is gone, as far as that can be seen."""
        host, pid, started = self.owner
        if host != _host():
            return time.time() - self.started > STRANGERS_AGE
        return not _is_running(pid, started)


class Journal:
    """The unfinished uploads of one kind of repository at one location.

    Args:
        kind: see `Entry`. "" keeps no journal.
        location: the repository's URI.
    """

    def __init__(self, kind: str, location: str = "") -> None:
        self._kind = kind
        self._location = location if redact_uri(location) == location else ""

    def begin(self, root: str, path: str, part_size: int, source: str) -> Entry:
        """Note an upload that is about to be created."""
        entry = Entry(
            kind=self._kind,
            location=self._location,
            root=root,
            path=path,
            upload_id="",
            part_size=part_size,
            source=source,
            owner=_this_process(),
            started=time.time(),
        )
        return self.note(entry)

    def note(self, entry: Entry, **changes: Any) -> Entry:
        """Write an entry with changes, and return it."""
        entry = replace(entry, **changes)
        if not self._kind:
            return entry
        try:
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            entry = replace(
                entry, file=entry.file or folder / f"{_key(entry.root, entry.path)}-{uuid.uuid4().hex}.json"
            )
            _write(entry)
        except OSError as exc:
            logger.debug("no journal of uploads is kept: %s", exc)
            self._kind = ""
            return replace(entry, file=None)
        return entry

    def forget(self, entry: Entry) -> None:
        """Remove an entry: the upload is complete, or gone."""
        if entry.file is not None:
            with contextlib.suppress(OSError):
                entry.file.unlink()

    def resumable(self, root: str, path: str, source: str) -> Entry | None:
        """An upload of the same file to the same place that nobody works on any more, now owned by this process."""
        if not source:
            return None
        for entry in self._entries(_key(root, path)):
            wanted = (entry.root, entry.path, entry.source) == (root, path, source) and entry.upload_id
            if wanted and (entry.idle or entry.is_left_behind()):
                taken = self._take(entry)
                if taken is not None:
                    return taken
        return None

    def left_behind(self) -> Iterator[Entry]:
        """The uploads of processes that are gone and that are due, each now owned by this one."""
        for entry in self._entries(""):
            if entry.not_before <= time.time() and entry.is_left_behind():
                taken = self._take(entry)
                if taken is not None:
                    yield taken

    def postpone(self, entry: Entry) -> None:
        """Leave an upload that could not be aborted to the next run, and later ones alone: its service may be gone."""
        pause = min(RETRY_AGE * 2**entry.failures, STRANGERS_AGE) if entry.failures else 0
        self.note(entry, failures=min(entry.failures + 1, 20), not_before=time.time() + pause)

    def known_ids(self) -> set[str]:
        """The ids of all uploads that are noted."""
        return {entry.upload_id for entry in self._entries("")}

    def _take(self, entry: Entry) -> Entry | None:
        """Make the entry this process's own. The rename lets only one process win."""
        assert entry.file is not None
        mine = entry.file.with_name(f"{_key(entry.root, entry.path)}-{uuid.uuid4().hex}.json")
        try:
            entry.file.rename(mine)
        except OSError:
            return None
        return self.note(replace(entry, file=mine, owner=_this_process(), idle=False))

    def _entries(self, prefix: str) -> Iterator[Entry]:
        try:
            names = sorted(os.listdir(_folder())) if self._kind else []
        except OSError:
            return
        for name in names:
            if name.startswith(prefix) and name.endswith(".json"):
                entry = _read(_folder() / name)
                if entry is not None and entry.kind == self._kind:
                    yield entry


def fingerprint(source: Source) -> str:
    """What tells one file's content from another's without reading it; "" for what is no file."""
    if source.file is None:
        return ""
    status = os.stat(source.file)
    return f"{os.path.abspath(source.file)}|{source.start}|{source.size}|{status.st_size}|{status.st_mtime_ns}"


def _folder() -> Path:
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given) / "uploads"
    from platformdirs import user_state_path

    return user_state_path("mlflow-plugkit", appauthor=False) / "uploads"


def _key(root: str, path: str) -> str:
    return hashlib.sha256(f"{root}\0{path}".encode()).hexdigest()[:24]


def _write(entry: Entry) -> None:
    """Write it beside and move it there, so that no other process reads half of it. `mkstemp` makes it 0600."""
    assert entry.file is not None
    values = {name: value for name, value in asdict(entry).items() if name != "file"}
    descriptor, draft = tempfile.mkstemp(prefix=".", dir=entry.file.parent)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(values, file)
    os.replace(draft, entry.file)


def _read(file: Path) -> Entry | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        host, pid, started = values.pop("owner")
        return Entry(**values, owner=(str(host), int(pid), float(started)), file=file)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # gone meanwhile, or not one of ours


def _this_process() -> tuple[str, int, float]:
    import psutil  # type: ignore[import-untyped, unused-ignore] # its stubs are a package of their own

    return _host(), os.getpid(), float(psutil.Process().create_time())


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()


def _is_running(pid: int, started: float) -> bool:
    """Whether the process that began then still runs. Its begin is known to a second or two only: clocks are set."""
    import psutil

    try:
        return abs(float(psutil.Process(pid).create_time()) - started) < 3
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
