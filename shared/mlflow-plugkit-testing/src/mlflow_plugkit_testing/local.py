"""A fresh local tracking store for a test: SQLite and a folder, in milliseconds."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import pytest

from mlflow_plugkit_testing.suite import ConformanceSuite

LEFT_OVERS = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI")


def fresh_sqlite_uri(folder: Path) -> str:
    """The URI of a new SQLite store in `folder`, migrated, with its artifacts below `folder`.

    Migrating takes seconds, so it is done once for the process and the file is copied.
    """
    database = folder / "mlflow.db"
    shutil.copyfile(_migrated_database(), database)
    location = (folder / "artifacts").as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (location,))
    return f"sqlite:///{database}"


@lru_cache(maxsize=1)
def _migrated_database() -> Path:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tempfile.TemporaryDirectory(prefix="mlflow-plugkit-")
    _folders.append(folder)
    database = Path(folder.name) / "mlflow.db"
    store = SqlAlchemyStore(f"sqlite:///{database}", folder.name)
    store.engine.dispose()
    return database


_folders: list[tempfile.TemporaryDirectory[str]] = []


class LocalTracking(ConformanceSuite):
    """For suites whose rules log to a run: the fixture `tracking_uri` makes a local store MLflow's current one."""

    @pytest.fixture
    def tracking_uri(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """A fresh SQLite store; no experiment is selected and no run is active, before and afterwards."""
        import mlflow

        uri = fresh_sqlite_uri(tmp_path)
        for name in LEFT_OVERS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", uri)
        monkeypatch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        monkeypatch.chdir(tmp_path)
        yield uri
        while mlflow.active_run():
            mlflow.end_run()
