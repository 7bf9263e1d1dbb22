"""Digests of the lock files that say which packages were meant to be installed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from mlflow_run_context.tables import LOCK_FILES, LOCK_PATTERNS

Found = dict[str, str]
MOST_FILES = 8
LARGEST_FILE = 64 << 20
MOST_NAMES = 5000
_LEVELS = 6


def lock_files(start: Path) -> Found:
    """`lock.<file name>`: SHA-256 of each lock file in the nearest folder, from `start` upwards, that holds any.

    The search ends at the root of a git repository, or after six folders. `sha256sum <file>` gives the same digest.
    """
    for folder in _upwards(start):
        names = _names(folder)
        if names:
            return {f"lock.{name}": f"sha256:{digest}" for name in names if (digest := _digest(folder / name))}
    return {}


def _upwards(start: Path) -> Iterator[Path]:
    for folder in (start, *start.parents)[:_LEVELS]:
        yield folder
        if (folder / ".git").exists():
            return


def _names(folder: Path) -> list[str]:
    names = []
    for number, path in enumerate(folder.iterdir()):
        if number >= MOST_NAMES:
            break  # a folder full of data, not a project's
        if path.name in LOCK_FILES or any(fnmatchcase(path.name, pattern) for pattern in LOCK_PATTERNS):
            names.append(path.name)
    known = [name for name in LOCK_FILES if name in names]
    return [*known, *sorted(set(names) - set(known))][:MOST_FILES]


def _digest(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:
            return ""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return ""
    return digest.hexdigest()
