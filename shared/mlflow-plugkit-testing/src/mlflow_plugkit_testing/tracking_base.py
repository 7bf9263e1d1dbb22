"""Fixtures, capability properties and helpers of the tracking store's conformance classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import LifecycleStage, Metric, Param, RunTag, ViewType

from mlflow_plugkit_testing.stores_base import StoreSuite


class TrackingStoreSuite(StoreSuite):
    """Base of the tracking store's conformance classes."""

    @pytest.fixture
    def artifact_root(self, tmp_path: Path) -> str:
        """The artifact root that the stores are given."""
        return (tmp_path / "artifacts").as_uri()

    @pytest.fixture
    def store(self, store_uri: str, artifact_root: str) -> Iterator[Any]:
        """The store under test on `store_uri`."""
        store = self.make_store(store_uri, artifact_root)
        yield store
        self.close_store(store)

    @pytest.fixture
    def experiment(self, store: Any) -> str:
        """The id of a new experiment without runs."""
        return str(store.create_experiment("plugkit", tags=[]))

    def store_builder(self, uri: str) -> Callable[..., Any]:
        """What MLflow calls to make the store: the entry point `mlflow.tracking_store` of the URI's scheme."""
        from mlflow.tracking._tracking_service.utils import _tracking_store_registry

        builder: Callable[..., Any] = _tracking_store_registry.get_store_builder(uri)
        return builder

    def make_store(self, uri: str, artifact_uri: str | None) -> Any:
        """Make a store as `mlflow.tracking._tracking_service.registry` does, but without its cache."""
        return self.store_builder(uri)(store_uri=uri, artifact_uri=artifact_uri)

    @property
    def supports_gc(self) -> bool:
        """Whether `mlflow gc` can delete for good (`_hard_delete_run` and its siblings)."""
        return True

    @property
    def supports_logged_models(self) -> bool:
        """Whether the store keeps logged models (MLflow 3)."""
        return True

    @property
    def supports_traces(self) -> bool:
        """Whether the store keeps traces (the API of MLflow >= 3.3)."""
        return True

    @property
    def supports_spans(self) -> bool:
        """Whether the store keeps the spans of traces (`log_spans`)."""
        return True

    @property
    def supports_assessments(self) -> bool:
        """Whether the store keeps the assessments of traces."""
        return True

    @property
    def supports_scorers(self) -> bool:
        """Whether the store keeps scorers."""
        return True

    @property
    def supports_evaluation_datasets(self) -> bool:
        """Whether the store keeps evaluation datasets (`create_dataset`)."""
        return True


def need(supported: bool, what: str) -> None:
    """Skip the rule if the plugin says that it does not offer `what`."""
    if not supported:
        pytest.skip(f"the plugin does not offer {what}")


def mlflow_has(name: str, what: str) -> None:
    """Skip the rule if the installed MLflow's abstract tracking store has no method `name`."""
    from mlflow.store.tracking.abstract_store import AbstractStore

    if not hasattr(AbstractStore, name):
        pytest.skip(f"this MLflow has no {what}")


def new_run(store: Any, experiment_id: str, name: str = "run", start_time: int = 1000, **tags: str) -> str:
    """Create a run, return its id."""
    run = store.create_run(experiment_id, "ada", start_time, [RunTag(k, v) for k, v in tags.items()], name)
    return str(run.info.run_id)


def metric(key: str, value: float, timestamp: int = 1, step: int = 0) -> Metric:
    """A metric point."""
    return Metric(key, value, timestamp, step)


def fill(store: Any, run_id: str, metrics: dict[str, float] | None = None, **params: str) -> None:
    """Log metrics and params to a run in one batch."""
    points = [metric(k, v) for k, v in (metrics or {}).items()]
    store.log_batch(run_id, points, [Param(k, v) for k, v in params.items()], [])


def names_found(store: Any, experiment_ids: list[str], filter_string: str = "", **kwargs: Any) -> list[str]:
    """The names of the runs that `search_runs` finds, in its order."""
    view = kwargs.pop("run_view_type", ViewType.ACTIVE_ONLY)
    runs = store.search_runs(experiment_ids, filter_string, view, max_results=kwargs.pop("max_results", 1000), **kwargs)
    return [run.info.run_name for run in runs]


def is_deleted(entity: Any) -> bool:
    """Whether an experiment, or the info of a run, is in the deleted stage."""
    return bool(entity.lifecycle_stage == LifecycleStage.DELETED)


def now() -> int:
    """The clock in milliseconds, as MLflow writes it."""
    return time.time_ns() // 1_000_000
