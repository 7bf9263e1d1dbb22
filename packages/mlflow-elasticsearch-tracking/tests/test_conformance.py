"""The store passes the conformance kit of tracking stores on a real node; the package that of plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.tracking import TrackingStoreConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class TestElasticsearchStore(TrackingStoreConformance):
    """`mlflow_plugkit_testing.tracking` on fresh prefixes of one node."""

    secret_uri = ("elasticsearch://user:Geheim-4711@127.0.0.1:9200/x", "Geheim-4711")

    @pytest.fixture(autouse=True)
    def _prefixes(self, prefixes: Prefixes) -> None:
        self._pool = prefixes

    @pytest.fixture
    def store_uri_factory(self, prefixes: Prefixes) -> Callable[[], str]:
        """Give each store a prefix without documents."""
        return prefixes.fresh_uri

    def make_store(self, uri: str, artifact_uri: str | None) -> Any:
        """Note who uses a prefix."""
        store = super().make_store(uri, artifact_uri)
        self._pool.opened(uri, store)
        return store

    def close_store(self, store: Any) -> None:
        """Set the prefix free."""
        self._pool.closed(store)


class TestPackaging(PackagingConformance):
    distribution = "mlflow-elasticsearch-tracking"
