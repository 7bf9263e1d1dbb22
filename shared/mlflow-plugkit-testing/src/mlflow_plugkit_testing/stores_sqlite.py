"""MLflow's own database store on fresh SQLite files, as the oracle that other stores are compared with.

Three things make a fresh store cheap. Migrating an empty file takes MLflow a second or more, so it is
done once in a process, and each fresh database is a copy of that file. MLflow's check of the schema,
which reads all of its migration scripts, has one answer in a process. And a file whose stores are all
closed is filled anew for the next one, so that MLflow's engine for it keeps its compiled statements.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="plugkit-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=1)
def _template() -> Path:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry

    path = _folder() / "template.db"
    engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{path}")
    _initialize_tables(engine)
    engine.dispose()
    return path


class _Files:
    """The database files of this process: which are used by open stores, and which may be filled anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, set[int]] = {}
        self._idle: list[str] = []
        self._made = 0

    def take(self) -> str:
        """The URI of a file that has MLflow's tables and no row."""
        with self._lock:
            template = _template()
            if self._idle:
                uri = self._idle.pop()
            else:
                self._made += 1
                uri = f"sqlite:///{_folder() / f'{self._made}.db'}"
            path = uri.removeprefix("sqlite:///")
            shutil.copyfile(template, f"{path}.new")
            os.replace(f"{path}.new", path)  # a connection that was left open keeps the old file
            return uri

    def opened(self, uri: str, store: Any) -> None:
        with self._lock:
            self._users.setdefault(uri, set()).add(id(store))

    def closed(self, uri: str, store: Any) -> bool:
        """Note that a store was closed; return whether it was one of those that were noted."""
        with self._lock:
            users = self._users.get(uri, set())
            if id(store) not in users:
                return False
            users.remove(id(store))
            if not users:
                self._idle.append(uri)
            return True


_files = _Files()


def fresh_sqlite_uri() -> str:
    """The URI of a SQLite file that has MLflow's tables and no row, removed at the end of the process.

    Once all stores that were opened on it have been disposed of (`dispose`), the file is given out again.
    """
    return _files.take()


@contextmanager
def opening(store: Any, uri: str) -> Iterator[None]:
    """Around the constructor of MLflow's own database store: note the store, and spare what is slow and known."""
    with _schema_is_known():
        yield
    _files.opened(uri, store)
    _write_without_waiting(store.engine)


def _schema_is_known() -> AbstractContextManager[Any]:
    from mlflow.store.db import utils

    if not hasattr(utils, "_get_latest_schema_revision"):
        return nullcontext()
    revision = _latest_schema_revision()
    return mock.patch.object(utils, "_get_latest_schema_revision", return_value=revision)


@lru_cache(maxsize=1)
def _latest_schema_revision() -> Any:
    from mlflow.store.db.utils import _get_latest_schema_revision

    return _get_latest_schema_revision()


def _write_without_waiting(engine: Any) -> None:
    """A test's database need not survive a power cut: leave writing to the disk to the system."""
    from sqlalchemy import event

    if not event.contains(engine, "connect", _never_sync):
        event.listen(engine, "connect", _never_sync)
        engine.dispose()


def _never_sync(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def sqlite_tracking_store(folder: Path) -> Any:
    """MLflow's `SqlAlchemyStore` of the tracking service on a fresh SQLite file, with artifacts below `folder`."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return _open(SqlAlchemyStore, str(folder / "artifacts"))


def sqlite_registry_store() -> Any:
    """MLflow's `SqlAlchemyStore` of the model registry on a fresh SQLite file."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    return _open(SqlAlchemyStore)


def _open(store_class: Any, *args: str) -> Any:
    uri, store = fresh_sqlite_uri(), store_class.__new__(store_class)
    with opening(store, uri):
        store_class.__init__(store, uri, *args)
    return store


def own_tracking_store_refuses(folder: Path, call: Callable[[Any], object]) -> bool:
    """Whether the installed MLflow's own store raises `MlflowException` for a call."""
    from mlflow.exceptions import MlflowException

    own = sqlite_tracking_store(folder)
    try:
        call(own)
    except MlflowException:
        return True
    finally:
        dispose(own)
    return False


def dispose(store: Any) -> None:
    """Close what a store keeps open, if it is a database store of MLflow and was used."""
    engine = vars(store).get("engine")
    if engine is not None:
        engine.dispose()
        if not _files.closed(store.db_uri, store):
            getattr(type(store), "_engine_map", {}).pop(store.db_uri, None)
