"""How a plugin's test class makes its stores: what tracking stores and model registries have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlflow_plugkit_testing.stores_sqlite import dispose
from mlflow_plugkit_testing.suite import ConformanceSuite


class StoreSuite(ConformanceSuite):
    """Base of the store classes.

    A plugin's test class overrides the fixture `store_uri_factory`; all else has a default that goes
    through MLflow's registry of entry points, by the scheme of the URI.
    """

    secret_uri: tuple[str, str] | None = None
    """A store URI with a secret in it, and that secret; None if the plugin's URIs never carry one."""

    @pytest.fixture
    def store_uri_factory(self) -> Callable[[], str]:
        """A function that returns the URI of a new, empty store each time it is called. Override it."""
        raise NotImplementedError("override the fixture store_uri_factory in your test class")

    @pytest.fixture
    def store_uri(self, store_uri_factory: Callable[[], str]) -> str:
        """The URI of a fresh, empty store."""
        return store_uri_factory()

    def close_store(self, store: Any) -> None:
        """Release what a store holds open; called once for each store that a rule makes."""
        dispose(store)
