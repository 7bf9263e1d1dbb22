"""The rules that run the state machines against a tracking store and against a model registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.differential import DifferentialMachine, Pair, compare
from mlflow_plugkit_testing.differential_models import ModelAndTraceMachine
from mlflow_plugkit_testing.differential_registry import RegistryMachine
from mlflow_plugkit_testing.differential_runs import RunMachine
from mlflow_plugkit_testing.registry_base import ModelRegistryStoreSuite
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_registry_store, sqlite_tracking_store
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, need, new_run


class DifferentialTrackingRules(TrackingStoreSuite):
    """Side by side with MLflow's own store, every answer is the same.

    A slow store lowers the two numbers; `mlflow_plugkit_testing.differential` names the environment
    variables that raise them for a long search.
    """

    run_machine: type[DifferentialMachine] = RunMachine
    differential_examples = 8
    differential_steps = 30
    differential_shrink = True

    def new_pair(self, folder: Path, fresh_uri: Callable[[], str]) -> Pair:
        """MLflow's own store on a fresh SQLite file, and the store under test on a fresh URI."""
        own = sqlite_tracking_store(folder)
        tested = self.make_store(fresh_uri(), (folder / "tested").as_uri())

        def close() -> None:
            dispose(own)
            self.close_store(tested)

        return Pair(own, tested, close)

    def test_runs_behave_as_in_mlflows_own_store(self, store_uri_factory: Callable[[], str], tmp_path: Path) -> None:
        """Random operations on experiments and runs have the answers, orders, pages and errors of SqlAlchemyStore."""
        ordered = _orders_histories(tmp_path)

        def new_pair() -> Pair:
            pair = self.new_pair(tmp_path, store_uri_factory)
            pair.ordered_histories = ordered
            return pair

        compare(
            self.run_machine, new_pair, self.differential_examples, self.differential_steps, self.differential_shrink
        )

    def test_models_and_traces_behave_as_in_mlflows_own_store(
        self, store_uri_factory: Callable[[], str], tmp_path: Path
    ) -> None:
        """Random operations on logged models, traces and assessments have the answers of SqlAlchemyStore."""
        from mlflow.store.tracking.abstract_store import AbstractStore

        start_trace = inspect.signature(AbstractStore.start_trace).parameters
        machine: Any = type(
            "ModelAndTraceMachine",
            (ModelAndTraceMachine,),
            {
                "has_models": hasattr(AbstractStore, "create_logged_model") and self.supports_logged_models,
                "has_traces": "trace_info" in start_trace and self.supports_traces,
                "has_assessments": hasattr(AbstractStore, "create_assessment") and self.supports_assessments,
            },
        )
        if not hasattr(AbstractStore, "create_logged_model"):
            pytest.skip("this MLflow has no logged models and no start_trace(trace_info)")
        need(machine.has_models or machine.has_traces, "logged models or traces")
        compare(
            machine,
            lambda: self.new_pair(tmp_path, store_uri_factory),
            self.differential_examples,
            self.differential_steps,
            self.differential_shrink,
        )


class DifferentialRegistryRules(ModelRegistryStoreSuite):
    """Side by side with MLflow's own registry store, every answer is the same."""

    registry_machine: type[DifferentialMachine] = RegistryMachine
    differential_examples = 8
    differential_steps = 30
    differential_shrink = True

    def test_the_registry_behaves_as_mlflows_own_store(self, store_uri_factory: Callable[[], str]) -> None:
        """Random operations on models, versions, tags, aliases and stages have the answers of SqlAlchemyStore."""

        def new_pair() -> Pair:
            own, tested = sqlite_registry_store(), self.make_store(store_uri_factory(), None)

            def close() -> None:
                dispose(own)
                self.close_store(tested)

            return Pair(own, tested, close)

        compare(
            self.registry_machine,
            new_pair,
            self.differential_examples,
            self.differential_steps,
            self.differential_shrink,
        )


def _orders_histories(folder: Path) -> bool:
    """Whether MLflow's own store orders and pages metric histories (3.x)."""
    own = sqlite_tracking_store(folder)
    run_id = new_run(own, "0")
    own.log_batch(run_id, [Metric("m", 1.0, t, 0) for t in (2, 1)], [], [])
    try:
        page: Any = own.get_metric_history(run_id, "m", max_results=1)
    except MlflowException:
        return False
    finally:
        dispose(own)
    return page.token is not None
