"""Listing one level, and deleting all that lies below a path."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import DeleteFailure, StoredObject
from mlflow_plugkit.artifacts.engine import Engine
from mlflow_plugkit.artifacts.names import is_clean
from mlflow_plugkit.errors import mlflow_error

#: How many listed objects are remembered, so that a folder's files can be downloaded without a `head` for each.
REMEMBERED = 50_000


class Listed:
    """What listings said lately of objects that they described fully: with the digest to verify their content by."""

    def __init__(self) -> None:
        self._objects: dict[str, StoredObject] = {}
        self._lock = threading.Lock()

    def remember(self, objects: Iterable[StoredObject]) -> None:
        """Keep those that can be verified; the oldest make room."""
        described = {o.path: o for o in objects if o.digest is not None or o.verified_by_read}
        with self._lock:
            self._objects.update(described)
            for path in list(islice(self._objects, max(0, len(self._objects) - REMEMBERED))):
                del self._objects[path]

    def pop(self, path: str) -> StoredObject | None:
        """What is known of an object, once: a second download looks again."""
        with self._lock:
            return self._objects.pop(path, None)


def list_level(engine: Engine, path: str) -> tuple[list[StoredObject], list[str]]:
    """The files and the folders directly below a clean path, without what MLflow must not see."""
    files: dict[str, StoredObject] = {}
    folders: set[str] = set()
    token: str | None = None
    while True:
        page = engine.call(engine.backend.list_page, path, token)
        files.update((o.path, o) for o in page.objects if _is_child(path, o.path))
        folders.update(f for f in (name.removesuffix("/") for name in page.folders) if _is_child(path, f))
        token = page.next_token
        if token is None:
            return list(files.values()), list(folders)


def _is_child(folder: str, path: str) -> bool:
    """Whether a listed name is a clean path directly below the folder."""
    if folder and not path.startswith(f"{folder}/"):
        return False
    name = path[len(folder) + 1 :] if folder else path
    return "/" not in name and is_clean(name)


def delete_below(engine: Engine, path: str) -> None:
    """Delete the file at a clean path and all that lies below it; `""` empties the root.

    Raises:
        MlflowException: `INTERNAL_ERROR`, with all objects that could not be deleted.
    """
    failures = engine.call(_delete_once, engine, path)
    if failures:
        raise _report(engine, failures)


def _delete_once(engine: Engine, path: str) -> list[DeleteFailure]:
    """One attempt; what could not be deleted is tried a second time."""
    backend = engine.backend
    # All paths before the first deletion: a backend may count its pages by position.
    paths = [o.path for o in backend.list_all(path) if _belongs(path, o.path)]
    failures: list[DeleteFailure] = []
    for batch in _batches(paths, backend.delete_batch):
        failed = backend.delete_many(batch)
        failures += backend.delete_many([f.path for f in failed]) if failed else []
    return failures


def _belongs(path: str, found: str) -> bool:
    return (not path or found == path or found.startswith(f"{path}/")) and ".." not in found.split("/")


def _batches(paths: Iterable[str], most: int) -> Iterator[Sequence[str]]:
    iterator = iter(paths)
    while batch := list(islice(iterator, most)):
        yield batch


def _report(engine: Engine, failures: Sequence[DeleteFailure]) -> MlflowException:
    shown = "; ".join(f"{f.path!r}: {f.code} {f.message}".rstrip() for f in failures[:10])
    more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
    row = next((r for r in engine.backend.errors.rows if r.match == failures[0].code), None)
    return mlflow_error(
        f"{engine.backend.errors.service}: {len(failures)} artifacts could not be deleted: {shown}{more}.",
        row.code if row else "INTERNAL_ERROR",
    )
