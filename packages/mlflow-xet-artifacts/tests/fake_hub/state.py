"""What a fake Hub remembers: repositories with branches and commits, and buckets."""

from __future__ import annotations

import fnmatch
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


class HubError(Exception):
    """An answer other than 200: the status, the Hub's X-Error-Code and its message."""

    def __init__(self, status: int, code: str = "", message: str = "refused") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class File:
    """A file of a repository or bucket: content is None where the xet storage holds it."""

    size: int
    oid: str
    content: bytes | None = None
    sha256: str | None = None
    xet_hash: str | None = None

    @classmethod
    def regular(cls, content: bytes) -> File:
        return cls(len(content), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), content)

    @classmethod
    def large(cls, size: int, sha256: str, xet_hash: str) -> File:
        return cls(size, hashlib.sha1(sha256.encode()).hexdigest(), None, sha256, xet_hash)


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: Mapping[str, File]
    parent: str | None = None


@dataclass
class Repository:
    """A git repository: its commits, branches and tags."""

    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = True

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag or an id of at least 7 digits."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        if oid is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def commit(self, branch: str, title: str, files: Mapping[str, File], nonce: str = "") -> Commit:
        """Put a new commit on a branch."""
        parent = self.branches.get(branch)
        seed = repr((parent, title, sorted((p, f.oid) for p, f in files.items()), len(self.commits), nonce))
        made = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, dict(files), parent)
        self.commits[made.oid] = made
        self.branches[branch] = made.oid
        return made

    def history(self, branch: str) -> list[Commit]:
        """The commits of a branch, newest first."""
        found, oid = [], self.branches.get(branch)
        while oid:
            found.append(self.commits[oid])
            oid = self.commits[oid].parent
        return found


class State:
    """All repositories (by type and id) and buckets (by id), under one lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.buckets: dict[str, dict[str, File]] = {}

    def create(self, kind: str, name: str, private: bool = True) -> Repository:
        """Make a repository as the Hub does: with one commit on main that holds `.gitattributes`."""
        with self.lock:
            if (kind, name) in self.repositories:
                raise HubError(409, message="You already created this repo")
            made = self.repositories[kind, name] = Repository(private=private)
            made.commit("main", "initial commit", {".gitattributes": File.regular(b"*.bin filter=lfs\n")}, name)
            return made

    def repository(self, kind: str, name: str) -> Repository:
        try:
            return self.repositories[kind, name]
        except KeyError:
            raise HubError(404, "RepoNotFound", "Repository not found") from None

    def bucket(self, name: str) -> dict[str, File]:
        try:
            return self.buckets[name]
        except KeyError:
            raise HubError(404, "RepoNotFound", "Bucket not found") from None


def level(files: Mapping[str, File], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The tree API's entries below a folder, in the order of their paths.

    Raises:
        HubError: 404 EntryNotFound where git has no such folder.
    """
    start = f"{folder}/" if folder else ""
    below = {path: file for path, file in files.items() if path.startswith(start)}
    if folder and not below:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist on the revision")
    return sorted(_entries(below, len(start), recursive), key=lambda entry: str(entry["path"]))


def bucket_level(files: Mapping[str, File], prefix: str, recursive: bool) -> list[dict[str, Any]]:
    """As `level` for a bucket, whose prefix matches as text: `logs` also brings `logs-old/a`."""
    below = {path: file for path, file in files.items() if path.startswith(prefix)}
    depth = len(prefix.split("/")) + 1 if prefix else 1
    entries: dict[str, dict[str, Any]] = {}
    for path, file in below.items():
        shown = "/".join(path.split("/")[:depth])
        if recursive or shown == path:
            entries[path] = {"type": "file", "path": path, "size": file.size, "xetHash": file.xet_hash}
        else:
            entries[shown] = {"type": "directory", "path": shown}
    return [entries[path] for path in sorted(entries)]


def _entries(files: Mapping[str, File], start: int, recursive: bool) -> Iterator[dict[str, Any]]:
    folders = set()
    for path, file in files.items():
        parts = path[start:].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folders.add(path[:start] + "/".join(parts[:depth]))
        if recursive or len(parts) == 1:
            yield describe(path, file)
    for folder in folders:
        yield {"type": "directory", "path": folder, "oid": hashlib.sha1(folder.encode()).hexdigest(), "size": 0}


def describe(path: str, file: File) -> dict[str, Any]:
    """A file as the tree and paths-info APIs show it."""
    shown: dict[str, Any] = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
    if file.xet_hash:
        shown |= {"xetHash": file.xet_hash, "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}}
    return shown


def is_ignored(path: str, patterns: Iterable[str]) -> bool:
    """Whether a `.gitignore` of plain patterns names the file or a folder above it."""
    parts = path.split("/")
    names = [*parts, path]
    return any(fnmatch.fnmatch(name, p.strip().rstrip("/")) for name in names for p in patterns if p.strip())
