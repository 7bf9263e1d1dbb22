"""The SQLite database inside a store's folder, opened on first use."""

from __future__ import annotations

import os
import threading
import uuid
from typing import Any

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_plugkit.compat import server_artifact_root
from mlflow_reference_plugin.settings import FolderSettings

DATABASE = "mlflow.db"
REASON = "MLflow's SQLite store, which keeps the data, does not offer it"

_migration = threading.Lock()  # Alembic, which makes MLflow's tables, serves one thread of a process at a time


def artifact_root(settings: FolderSettings, artifact_uri: str | None) -> str:
    """Where artifacts go: what the caller says, what the server was started with, or a folder beside the data."""
    return artifact_uri or server_artifact_root() or f"{settings.absolute_uri}/artifacts"


def prepare_database(settings: FolderSettings, artifact_uri: str | None) -> str:
    """Make the database where there is none, and return its SQLAlchemy URI.

    It is built aside and published by a hard link, which is atomic: of several processes that open a
    new folder at once one wins, and none ever sees a half-made database.
    """
    folder = settings.store_folder
    database = folder / DATABASE
    with _migration:
        if database.exists():
            return f"sqlite:///{database}"
        folder.mkdir(exist_ok=True)
        draft = folder / f".{uuid.uuid4().hex}.db"
        try:
            SqlAlchemyStore(f"sqlite:///{draft}", artifact_root(settings, artifact_uri)).engine.dispose()
            os.link(draft, database)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    return f"sqlite:///{database}"


class OpensOnFirstUse:
    """Mixin: runs `_open` when something first asks for what the base class's constructor would have set.

    MLflow makes stores early and often (each server worker makes two); so a constructor only reads its
    settings, and the database is opened by the first operation, once, whatever number of threads ask.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._state = "closed"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_lock", "_state"):
            raise AttributeError(name)
        with self._lock:
            if self._state == "opening":
                raise AttributeError(name)
            if self._state == "closed":
                self._state = "opening"
                try:
                    self._open()
                    self._state = "open"
                finally:
                    self._state = "open" if self._state == "open" else "closed"
        return object.__getattribute__(self, name)

    def _open(self) -> None:
        raise AssertionError("a store says how it is opened")
