"""A fresh local tracking store for a test: SQLite and a folder, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store
from mlflow_plugkit_testing.suite import ConformanceSuite

LEFT_OVERS = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI")


class LocalTracking(ConformanceSuite):
    """For suites whose rules log to a run: the fixture `tracking_uri` makes a local store MLflow's current one."""

    @pytest.fixture
    def tracking_uri(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """A fresh SQLite store; no experiment is selected and no run is active, before and afterwards."""
        import mlflow

        store = sqlite_tracking_store(tmp_path)
        uri = str(store.db_uri)
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
        dispose(store)
