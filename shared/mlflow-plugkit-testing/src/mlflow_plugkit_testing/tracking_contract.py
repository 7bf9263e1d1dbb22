"""Rules about the store as an object: its constructor, its members, its place in MLflow."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunTag

from mlflow_plugkit_testing.stores import (
    effects,
    errors_in,
    incompatible_signatures,
    together,
    unanswered_members,
)
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, new_run


class TrackingContractRules(TrackingStoreSuite):
    """The constructor, the members and the identity of a tracking store."""

    def test_the_entry_point_takes_store_uri_and_artifact_uri_by_keyword(self, store_uri: str) -> None:
        """MLflow calls the entry point as `builder(store_uri=..., artifact_uri=...)`."""
        signature = inspect.signature(self.store_builder(store_uri))
        try:
            signature.bind(store_uri=store_uri, artifact_uri=None)
        except TypeError as exc:
            pytest.fail(
                f"mlflow.tracking._tracking_service.registry calls the entry point with the keywords store_uri "
                f"and artifact_uri, which {signature} does not take: {exc}"
            )

    def test_the_constructor_only_parses(self, store_uri: str, artifact_root: str) -> None:
        """Making a store opens no connection, writes no file and starts no thread.

        A server process builds its stores several times over, and `mlflow server` builds them in the
        parent of its workers (mlflow.server.handlers.initialize_backend_stores).
        """
        self.store_builder(store_uri)  # imports what the plugin needs, which may be slow but is harmless
        self.close_store(self.make_store(store_uri, artifact_root))
        with effects.recorded() as seen:
            store = self.make_store(store_uri, artifact_root)
        self.close_store(store)
        assert not seen, f"the constructor must only parse its arguments, and do the rest on first use; it did: {seen}"

    def test_without_an_artifact_uri_a_default_root_is_chosen(self, store_uri: str) -> None:
        """`artifact_uri=None`, which clients pass, gives experiments and runs a place for artifacts."""
        store = self.make_store(store_uri, None)
        experiment = store.get_experiment(store.create_experiment("located"))
        run = store.get_run(new_run(store, experiment.experiment_id))
        self.close_store(store)
        location = experiment.artifact_location
        assert isinstance(location, str), (
            f"without an artifact_uri an experiment must get a default root, not {location!r}"
        )
        assert "None" not in location, (
            f"without an artifact_uri an experiment must get a default root, not {location!r}"
        )
        assert location, "without an artifact_uri an experiment must get a default root, not an empty one"
        assert run.info.artifact_uri.startswith(location), f"{run.info.artifact_uri!r} is not below {location!r}"

    def test_the_given_artifact_root_is_used(self, store: Any, artifact_root: str) -> None:
        """The location of a new experiment lies below the store's artifact root."""
        location = store.get_experiment(store.create_experiment("located")).artifact_location
        path = artifact_root.removeprefix("file://")
        assert location.removeprefix("file://").startswith(path), (
            f"a new experiment's artifact_location must lie below the artifact_uri {artifact_root!r} given to the "
            f"constructor; it is {location!r}"
        )

    def test_two_stores_on_one_uri_see_each_others_writes(self, store: Any, store_uri: str, artifact_root: str) -> None:
        """A write is visible at once through another instance: MLflow's server has several per worker."""
        other = self.make_store(store_uri, artifact_root)
        experiment_id = store.create_experiment("shared")
        run_id = new_run(store, experiment_id)
        other.log_param(run_id, Param("p", "1"))
        other.log_metric(run_id, Metric("m", 2.0, 1, 0))
        seen = store.get_run(run_id).data
        found = [e.name for e in other.search_experiments()]
        self.close_store(other)
        assert (seen.params, seen.metrics) == ({"p": "1"}, {"m": 2.0}), (
            f"what a second store on the same URI wrote must be read at once; read {seen.params} {seen.metrics}"
        )
        assert "shared" in found, "an experiment must be found at once by a second store on the same URI"

    def test_eight_stores_may_be_used_first_at_the_same_time(
        self, store_uri_factory: Callable[[], str], artifact_root: str
    ) -> None:
        """First use prepares the backend once, race-safe: eight stores on one fresh URI all work."""
        uri = store_uri_factory()
        stores = [self.make_store(uri, artifact_root) for _ in range(8)]
        results = together(8, lambda i: stores[i].get_experiment("0").name)
        for store in stores:
            self.close_store(store)
        assert results == ["Default"] * 8, (
            f"eight stores that are used first at the same time must all find the default experiment: {results}"
        )

    def test_one_store_serves_many_threads(self, store: Any, experiment: str) -> None:
        """Threads may share a store: MLflow's server calls it from a thread pool."""

        def work(number: int) -> str:
            run_id = new_run(store, experiment, name=f"r{number}")
            store.set_tag(run_id, RunTag("number", str(number)))
            return str(store.get_run(run_id).data.tags["number"])

        results = together(8, work)
        assert results == [str(i) for i in range(8)], (
            f"eight threads that share a store must not disturb each other: {results}"
        )

    def test_asynchronous_logging_works(self, store: Any, experiment: str) -> None:
        """`log_batch_async`, inherited from AbstractStore, needs `super().__init__()`."""
        run_id = new_run(store, experiment)
        try:
            store.log_batch_async(run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "x")], []).wait()
            store.flush_async_logging()
        except AttributeError as exc:
            pytest.fail(f"asynchronous logging failed, AbstractStore.__init__ must be called: {exc}")
        logged = store.get_run(run_id).data
        assert (logged.metrics, logged.params) == ({"m": 1.0}, {"p": "x"}), "asynchronous logging lost what was logged"

    def test_every_member_of_the_abstract_store_is_answered(self, store: Any) -> None:
        """Each member of this MLflow's AbstractStore works, or raises MlflowException `NOT_IMPLEMENTED`.

        A missing method returns None without a word, and NotImplementedError becomes an HTML page with
        status 500 (mlflow.server.handlers.catch_mlflow_exception knows MlflowException only).
        """
        from mlflow.store.tracking.abstract_store import AbstractStore

        silent = unanswered_members(type(store), AbstractStore)
        assert not silent, (
            "these members of mlflow.store.tracking.abstract_store.AbstractStore are left unanswered; implement them "
            f"or raise MlflowException NOT_IMPLEMENTED: {', '.join(silent)}"
        )

    def test_signatures_are_those_of_the_abstract_store(self, store: Any) -> None:
        """Every member can be called in each way in which this MLflow's AbstractStore can be called."""
        from mlflow.store.tracking.abstract_store import AbstractStore

        narrow = incompatible_signatures(type(store), AbstractStore)
        assert not narrow, f"signatures narrower than those of MLflow's AbstractStore: {'; '.join(narrow)}"

    def test_no_secret_is_shown(self, artifact_root: str) -> None:
        """Neither repr nor str of a store shows the secret of its URI."""
        if self.secret_uri is None:
            pytest.skip("the plugin's URIs carry no secret (secret_uri is None)")
        uri, secret = self.secret_uri
        store = self.make_store(uri, artifact_root)
        shown = f"{store!r} {store!s}"
        assert secret not in shown, "the store shows its secret in repr or str"

    def test_threads_lose_no_metric(self, store: Any, experiment: str) -> None:
        """Eight threads that log to one run at the same time lose no point, and the latest value is right."""
        run_id = new_run(store, experiment)

        def work(number: int) -> None:
            for step in range(5):
                store.log_metric(run_id, Metric("m", float(number), 100 * number + step, 100 * number + step))

        problems = errors_in(together(8, work))
        assert not problems, f"metrics logged by eight threads at once must not fail: {problems}"
        steps = sorted(m.step for m in store.get_metric_history(run_id, "m"))
        wanted = sorted(100 * i + s for i in range(8) for s in range(5))
        assert steps == wanted, f"metrics logged by eight threads at once were lost: {set(wanted) - set(steps)}"
        latest = store.get_run(run_id).data.metrics["m"]
        assert latest == 7.0, (
            f"after eight threads logged at once the latest value must be that of the highest step: {latest}"
        )
