"""Git's state: commit, branch and remote read from its files, at once; changes asked of the `git` command.

Sources: gitrepository-layout(5), gitformat-index(5), git-status(1) "Porcelain Format Version 2", git-config(1).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mlflow_run_context.commands import CommandError, run
from mlflow_run_context.files import text_of

Found = dict[str, str]
Take = Callable[[bytes], bool]
TIMEOUT = 10.0
MOST_OUTPUT = 64 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"ref: (?P<name>refs/[^\s\x00-\x20~^:?*\[\\]+)")
_REMOTE = re.compile(r"\s*\[remote \"(?P<name>[^\"]*)\"\]\s*")
_URL = re.compile(r"\s*url\s*=\s*\"?(?P<url>[^\"\s]+)\"?\s*", re.IGNORECASE)
# What a repository's own configuration could have git run, or wait for, is switched off.
_GIT = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.devnull,
        "-c", "core.pager=cat", "-c", "submodule.recurse=false"]  # fmt: skip


class Repository(NamedTuple):
    """Where things are: the working tree, its own git folder, and the one that all its working trees share."""

    top: Path
    own: Path
    common: Path


def start_folder() -> Path | None:
    """Where the code is: the main script's folder if it is in a repository, otherwise the working directory.

    None where the working directory was deleted.
    """
    script = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] and _has_folder() else ""
    # A tool of the Python environment (pytest, a notebook's kernel) is not the user's code.
    if script and os.path.isfile(script) and not script.startswith((sys.prefix + os.sep, sys.base_prefix + os.sep)):
        folder = Path(script).parent
        if find_repository(folder):
            return folder
    try:
        return Path.cwd()
    except OSError:
        return None


def _has_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return bool(sys.argv) and os.path.isabs(sys.argv[0])
    return True


def find_repository(start: Path) -> Repository | None:
    """The repository whose working tree holds the folder, or None. Reads the file system only."""
    for folder in (start, *start.parents):
        dot = folder / ".git"
        if os.path.isdir(dot):
            own = dot
        elif (link := text_of(dot, 4096)).startswith("gitdir:"):  # a linked working tree or a submodule
            own = folder / link.removeprefix("gitdir:").strip()
        else:
            continue
        if not os.path.isfile(own / "HEAD"):
            continue
        shared = text_of(own / "commondir", 4096)
        return Repository(folder, own, own / shared if shared else own)
    return None


def signature(repository: Repository) -> tuple[object, ...]:
    """What changes with a commit, a checkout, `git add` and a change of remotes."""
    paths = [repository.own / "HEAD", repository.own / "index", repository.common / "config"]
    paths.append(repository.common / "packed-refs")
    if ref := _REF.fullmatch(text_of(repository.own / "HEAD", 1000)):
        paths.append(repository.common / ref["name"])
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(maxsize=16)
def head(repository: Repository, signature: object) -> Found:
    """`git.commit`, `git.branch`, `git.remote` and `git.repository`, as far as the files tell.

    Args:
        repository: where to read.
        signature: the files' `signature`; with the same one the answer is the same.
    """
    found = {"git.repository": repository.top.name}
    text = text_of(repository.own / "HEAD", 1000)
    ref = _REF.fullmatch(text)
    commit = text
    if ref and ".." not in ref["name"]:
        if ref["name"].startswith("refs/heads/") and not ref["name"].endswith("/.invalid"):  # that is a reftable's
            found["git.branch"] = ref["name"].removeprefix("refs/heads/")
        commit = text_of(repository.common / ref["name"], 200) or _packed(repository, ref["name"])
    if _COMMIT.fullmatch(commit):
        found["git.commit"] = commit
    if url := remote_url(text_of(repository.common / "config")):
        found["git.remote"] = url
        found["git.repository"] = repository_name(url) or found["git.repository"]
    return found


def _packed(repository: Repository, ref: str) -> str:
    for line in text_of(repository.common / "packed-refs", 8 << 20).splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return commit
    return ""


def remote_url(config: str) -> str:
    """The URL of the remote `origin`, or of the first one, without user, password, query and fragment."""
    urls: dict[str, str] = {}
    remote = None
    for line in config.splitlines():
        if section := _REMOTE.fullmatch(line):
            remote = section["name"]
        elif line.lstrip().startswith("["):
            remote = None
        elif remote is not None and (entry := _URL.fullmatch(line)):
            urls.setdefault(remote, entry["url"])
    return without_credentials(urls.get("origin") or next(iter(urls.values()), ""))


def without_credentials(url: str) -> str:
    """The URL without what is not its place; "" for one that cannot be parsed. `git@host:path` stays as it is."""
    if "://" not in url:
        return url if url.count("@") <= 1 and ":" not in url.partition("@")[0] else ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def repository_name(url: str) -> str:
    """The last part of the URL's path, without `.git`."""
    return re.split(r"[/:\\]", url.rstrip("/").removesuffix(".git"))[-1]


def _update(digest: hashlib._Hash, piece: bytes) -> bool:
    digest.update(piece)
    return True


def changes(repository: Repository) -> Found:
    """`git.dirty` of the tracked files, `git.untracked` where there are such files, and `git.diff_digest`.

    The digest is the SHA-256 of `git diff HEAD --binary`: equal for equal changes on the same commit.

    Raises:
        CommandError: git is not there, does not answer, or refuses the repository.
    """
    status = Status()
    _git(repository, status.take, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal",
         "--ignore-submodules=dirty")  # fmt: skip
    found = status.found()
    if status.changed:
        digest = hashlib.sha256()
        try:
            complete = diff(repository, lambda piece: _update(digest, piece))
        except CommandError:  # before the first commit there is no HEAD to compare with
            complete = False
        if complete:
            found["git.diff_digest"] = f"sha256:{digest.hexdigest()}"
    return found


def diff(repository: Repository, take: Take, timeout: float = TIMEOUT) -> bool:
    """Hand on the uncommitted changes of tracked files in pieces, as `commands.run`; raises what that raises."""
    return _git(repository, take, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv",
                "--ignore-submodules=dirty", timeout=timeout)  # fmt: skip


def _git(repository: Repository, take: Take, *arguments: str, timeout: float = TIMEOUT) -> bool:
    seen = 0

    def limited(piece: bytes) -> bool:
        nonlocal seen
        seen += len(piece)
        return take(piece) and seen < MOST_OUTPUT

    return run([*_GIT, *arguments], limited, folder=repository.top, timeout=timeout)


class Status:
    """Reads the NUL-separated entries of `git status --porcelain=v2 --branch -z` piece by piece."""

    def __init__(self) -> None:
        self.changed = 0
        self.untracked = 0
        self._about: Found = {}
        self._rest = b""
        self._skip = False

    def take(self, piece: bytes) -> bool:
        """Read one piece; there may always be more."""
        *entries, self._rest = (self._rest + piece).split(b"\0")
        for entry in entries:
            if self._skip:  # the former path of a renamed file
                self._skip = False
            elif entry[:2] in (b"1 ", b"2 ", b"u "):
                self.changed += 1
                self._skip = entry[:2] == b"2 "
            elif entry[:2] == b"? ":
                self.untracked += 1
            elif entry[:2] == b"# ":
                name, _, value = entry[2:].decode("utf-8", "replace").partition(" ")
                self._about[name] = value
        return True

    def found(self) -> Found:
        """The tags; commit and branch, too, for repositories whose files do not tell them."""
        found = {"git.dirty": "true" if self.changed else "false"}
        if self.untracked:
            found["git.untracked"] = str(self.untracked)
        if _COMMIT.fullmatch(commit := self._about.get("branch.oid", "")):
            found["git.commit"] = commit
        if (branch := self._about.get("branch.head", "(detached)")) != "(detached)":
            found["git.branch"] = branch
        return found


def diff_text(repository: Repository, limit: int = 10_000, timeout: float = TIMEOUT) -> str:
    """The first `limit` bytes of the uncommitted changes of tracked files; raises what `commands.run` raises."""
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return sum(map(len, pieces)) < limit

    diff(repository, take, timeout)
    return b"".join(pieces)[:limit].decode("utf-8", "replace")
