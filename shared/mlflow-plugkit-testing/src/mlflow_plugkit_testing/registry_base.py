"""Fixtures, capability properties and helpers of the model registry's conformance classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlflow_plugkit_testing.stores_base import StoreSuite


class ModelRegistryStoreSuite(StoreSuite):
    """Base of the model registry's conformance classes."""

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
