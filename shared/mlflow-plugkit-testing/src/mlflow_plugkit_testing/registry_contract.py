"""Rules about the registry store as an object: its constructor, its members, its place in MLflow."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mlflow_plugkit_testing.registry_base import ModelRegistryStoreSuite, new_version
from mlflow_plugkit_testing.stores import effects, incompatible_signatures, together, unanswered_members


class RegistryContractRules(ModelRegistryStoreSuite):
    """The constructor, the members and the identity of a registry store."""

    def test_the_entry_point_takes_store_uri_by_keyword(self, store_uri: str) -> None:
        """MLflow calls it as `builder(store_uri=...)`, with `tracking_uri=` too if both names are in its signature."""
        signature = inspect.signature(self.store_builder(store_uri))
        both = {"store_uri", "tracking_uri"} <= set(signature.parameters)
        try:
            signature.bind(**({"store_uri": store_uri, "tracking_uri": None} if both else {"store_uri": store_uri}))
        except TypeError as exc:
            pytest.fail(
                "mlflow.tracking._model_registry.registry calls the entry point with the keyword store_uri, and with "
                f"tracking_uri if it names both, which {signature} does not take: {exc}"
            )

    def test_the_constructor_only_parses(self, store_uri: str) -> None:
        """Making a store opens no connection, writes no file and starts no thread."""
        self.close_store(self.make_store(store_uri, None))
        with effects.recorded() as seen:
            store = self.make_store(store_uri, None)
        self.close_store(store)
        assert not seen, f"the constructor must only parse its arguments, and do the rest on first use; it did: {seen}"

    def test_two_stores_on_one_uri_see_each_others_writes(self, store: Any, store_uri: str, model: str) -> None:
        """A write is visible at once through another instance: MLflow's server has several workers."""
        other = self.make_store(store_uri, None)
        version = new_version(other, model)
        found = [v.version for v in store.search_model_versions(f"name = '{model}'")]
        self.close_store(other)
        assert [str(v) for v in found] == [version], f"a version made by a second store must be found at once: {found}"

    def test_eight_stores_may_be_used_first_at_the_same_time(self, store_uri_factory: Callable[[], str]) -> None:
        """First use prepares the backend once, race-safe: eight stores on one fresh URI all work."""
        uri = store_uri_factory()
        stores = [self.make_store(uri, None) for _ in range(8)]
        results = together(8, lambda i: list(stores[i].search_registered_models()))
        for store in stores:
            self.close_store(store)
        assert results == [[]] * 8, (
            f"eight registry stores that are used first at the same time must all work: {results}"
        )

    def test_every_member_of_the_abstract_store_is_answered(self, store: Any) -> None:
        """Each member of this MLflow's AbstractStore works, or raises MlflowException `NOT_IMPLEMENTED`."""
        from mlflow.store.model_registry.abstract_store import AbstractStore

        silent = unanswered_members(type(store), AbstractStore)
        assert not silent, (
            "these members of mlflow.store.model_registry.abstract_store.AbstractStore are left unanswered; implement "
            f"them or raise MlflowException NOT_IMPLEMENTED: {', '.join(silent)}"
        )

    def test_signatures_are_those_of_the_abstract_store(self, store: Any) -> None:
        """Every member can be called in each way in which this MLflow's AbstractStore can be called."""
        from mlflow.store.model_registry.abstract_store import AbstractStore

        narrow = incompatible_signatures(type(store), AbstractStore)
        assert not narrow, f"signatures narrower than those of MLflow's AbstractStore: {'; '.join(narrow)}"

    def test_a_store_can_be_pickled(self, store_uri: str) -> None:
        """A store, used or not, can be pickled where MLflow's base class can (`AbstractStore.__getstate__`)."""
        from mlflow.store.model_registry.abstract_store import AbstractStore

        if "__setstate__" not in vars(AbstractStore):
            pytest.skip("this MLflow has no pickling of registry stores")
        store = self.make_store(store_uri, None)
        try:
            copy = pickle.loads(pickle.dumps(store))  # noqa: S301 (our own bytes)
        except Exception as exc:
            raise AssertionError(f"a registry store must be picklable, as MLflow's base class is: {exc!r}") from exc
        copy.create_registered_model("by copy")
        found = store.get_registered_model("by copy").name
        self.close_store(copy)
        self.close_store(store)
        assert found == "by copy", "a pickled registry store must lead to the same data"

    def test_no_secret_is_shown(self) -> None:
        """Neither repr nor str of a store shows the secret of its URI."""
        if self.secret_uri is None:
            pytest.skip("the plugin's URIs carry no secret (secret_uri is None)")
        uri, secret = self.secret_uri
        store = self.make_store(uri, None)
        shown = f"{store!r} {store!s}"
        assert secret not in shown, "the registry store shows its secret in repr or str"
