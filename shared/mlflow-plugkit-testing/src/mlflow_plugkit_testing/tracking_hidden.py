"""Rules about the methods that MLflow calls on a tracking store without declaring them in AbstractStore."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import Metric

from mlflow_plugkit_testing.stores import refused
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, is_deleted, mlflow_has, need, new_run
from mlflow_plugkit_testing.tracking_runs import dataset_input


class HiddenMethodRules(TrackingStoreSuite):
    """The hidden part of the contract; each rule names the caller."""

    def test_the_datasets_of_experiments_are_listed(self, store: Any, experiment: str) -> None:
        """`_search_datasets(experiment_ids)` (mlflow.server.handlers, for the UI's runs page) sums datasets up."""
        assert hasattr(store, "_search_datasets"), (
            "mlflow.server.handlers calls _search_datasets(experiment_ids); without it the UI's runs page gets HTTP 500"
        )
        other = store.create_experiment("other")
        store.log_inputs(new_run(store, experiment), datasets=[dataset_input("d1")])
        store.log_inputs(new_run(store, other), datasets=[dataset_input("d2", context="test")])
        found = store._search_datasets([experiment])
        read = [(s.experiment_id, s.name, s.digest, s.context) for s in found]
        assert read == [(experiment, "d1", "1f", "train")], f"_search_datasets of one experiment listed {read}"
        assert len(store._search_datasets([experiment, other])) == 2, (
            "_search_datasets must list every experiment's datasets"
        )

    def test_deleted_runs_are_listed_for_gc(self, store: Any, experiment: str) -> None:
        """`_get_deleted_runs(older_than)` (`mlflow gc`) lists the ids of runs deleted at least so long ago."""
        need(self.supports_gc, "mlflow gc")
        kept, deleted = new_run(store, experiment), new_run(store, experiment)
        store.delete_run(deleted)
        assert hasattr(store, "_get_deleted_runs"), "mlflow gc calls _get_deleted_runs"
        found = store._get_deleted_runs()
        assert list(found) == [deleted], f"_get_deleted_runs must list the deleted run only, not {found} (kept {kept})"
        young = list(store._get_deleted_runs(older_than=3_600_000))
        assert young == [], "_get_deleted_runs(older_than) must leave out runs deleted more recently"

    def test_runs_are_deleted_for_good(self, store: Any, experiment: str) -> None:
        """`_hard_delete_run` (`mlflow gc` refuses a store without it) removes a run and its metrics."""
        need(self.supports_gc, "mlflow gc")
        run_id, kept = new_run(store, experiment, t="1"), new_run(store, experiment)
        for run in (run_id, kept):
            store.log_metric(run, Metric("m", 1.0, 1, 0))
        store.delete_run(run_id)
        assert hasattr(store, "_hard_delete_run"), "mlflow gc refuses a store without _hard_delete_run"
        store._hard_delete_run(run_id)
        with refused("RESOURCE_DOES_NOT_EXIST", "get_run after _hard_delete_run"):
            store.get_run(run_id)
        assert store.get_run(kept).data.metrics == {"m": 1.0}, "_hard_delete_run removed data of another run"

    def test_experiments_are_deleted_for_good(self, store: Any, experiment: str) -> None:
        """`_hard_delete_experiment` (`mlflow gc --experiment-ids`) removes a deleted experiment and frees its name."""
        need(self.supports_gc, "mlflow gc")
        store.delete_experiment(experiment)
        assert hasattr(store, "_hard_delete_experiment"), "mlflow gc calls _hard_delete_experiment"
        store._hard_delete_experiment(experiment)
        with refused("RESOURCE_DOES_NOT_EXIST", "get_experiment after _hard_delete_experiment"):
            store.get_experiment(experiment)
        again = store.create_experiment("plugkit")
        assert not is_deleted(store.get_experiment(again)), "the name of an experiment deleted for good must be free"

    def test_logged_models_are_deleted_for_good(self, store: Any, experiment: str) -> None:
        """`_get_deleted_logged_models` and `_hard_delete_logged_model` (`mlflow gc`) list and remove logged models."""
        mlflow_has("create_logged_model", "logged models")
        need(self.supports_logged_models and self.supports_gc, "mlflow gc of logged models")
        if not hasattr(_sql_store(), "_hard_delete_logged_model"):
            pytest.skip("this MLflow has no gc of logged models")
        model_id = store.create_logged_model(experiment, "m").model_id
        store.delete_logged_model(model_id)
        assert hasattr(store, "_hard_delete_logged_model"), "mlflow gc calls _hard_delete_logged_model"
        listed = list(store._get_deleted_logged_models())
        assert listed == [model_id], f"_get_deleted_logged_models must list the deleted model, not {listed}"
        store._hard_delete_logged_model(model_id)
        assert list(store._get_deleted_logged_models()) == [], "_hard_delete_logged_model left the model in place"

    def test_params_are_added_to_a_logged_model(self, store: Any, experiment: str) -> None:
        """`log_logged_model_params(model_id, params)` (mlflow.server.handlers) adds params to a logged model."""
        mlflow_has("create_logged_model", "logged models")
        need(self.supports_logged_models, "logged models")
        from mlflow.entities import LoggedModelParameter

        model_id = store.create_logged_model(experiment, "m", params=[LoggedModelParameter("a", "1")]).model_id
        assert hasattr(store, "log_logged_model_params"), "mlflow.server.handlers calls log_logged_model_params"
        store.log_logged_model_params(model_id, [LoggedModelParameter("b", "2")])
        params = store.get_logged_model(model_id).params
        assert params == {"a": "1", "b": "2"}, f"log_logged_model_params must add to the model's params: {params}"


def _sql_store() -> type[Any]:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: type[Any] = SqlAlchemyStore
    return store
