"""Fixtures, capability properties and helpers of the model registry's conformance classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlflow_plugkit_testing.stores_sqlite import dispose
from mlflow_plugkit_testing.suite import ConformanceSuite


class ModelRegistryStoreSuite(ConformanceSuite):
    """Base of the registry's conformance classes: how a plugin's test class makes its stores.

    A plugin's test class overrides the fixture `store_uri_factory`; all else has a default that goes
    through MLflow's registry of entry points, by the scheme of the URI.
    """

    secret_uri: tuple[str, str] | None = None
    """A store URI with a secret in it, and that secret; None if the plugin's URIs never carry one."""

    @pytest.fixture
    def store_uri_factory(self) -> Callable[[], str]:
        """A function that returns the URI of a new, empty registry each time it is called. Override it."""
        raise NotImplementedError("override the fixture store_uri_factory in your test class")

    @pytest.fixture
    def store_uri(self, store_uri_factory: Callable[[], str]) -> str:
        """The URI of a fresh, empty registry."""
        return store_uri_factory()

    @pytest.fixture
    def store(self, store_uri: str) -> Iterator[Any]:
        """The registry store under test on `store_uri`."""
        store = self.make_store(store_uri, None)
        yield store
        self.close_store(store)

    @pytest.fixture
    def model(self, store: Any) -> str:
        """The name of a registered model without versions."""
        return str(store.create_registered_model("plugkit").name)

    def store_builder(self, uri: str) -> Callable[..., Any]:
        """What MLflow calls to make the store: the entry point `mlflow.model_registry_store` of the URI's scheme."""
        from mlflow.tracking._model_registry.utils import _get_store_registry

        builder: Callable[..., Any] = _get_store_registry().get_store_builder(uri)
        return builder

    def make_store(self, uri: str, tracking_uri: str | None) -> Any:
        """Make a store as `mlflow.tracking._model_registry.registry` does, but without its cache."""
        builder = self.store_builder(uri)
        if {"store_uri", "tracking_uri"} <= set(inspect.signature(builder).parameters):
            return builder(store_uri=uri, tracking_uri=tracking_uri)
        return builder(store_uri=uri)

    def close_store(self, store: Any) -> None:
        """Release what a store holds open; called once for each store that a rule makes."""
        dispose(store)

    @property
    def supports_prompts(self) -> bool:
        """Whether the registry keeps prompts (MLflow >= 3.1); the base class keeps them as registered models."""
        return True

    @property
    def supports_webhooks(self) -> bool:
        """Whether the registry keeps webhooks (MLflow >= 3.3)."""
        return True


def mlflow_has(name: str, what: str) -> None:
    """Skip the rule if the installed MLflow's abstract registry store has no method `name`."""
    from mlflow.store.model_registry.abstract_store import AbstractStore

    if not hasattr(AbstractStore, name):
        pytest.skip(f"this MLflow has no {what}")


def new_version(store: Any, name: str, source: str = "s3://bucket/model", **kwargs: Any) -> str:
    """Create a version, return its number as text."""
    return str(store.create_model_version(name, source, **kwargs).version)
