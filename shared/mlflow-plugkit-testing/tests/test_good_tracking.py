"""MLflow's own database store, made lazy, keeps every rule of the tracking store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlflow_plugkit_testing.stores_lazy import LazyTrackingStore
from mlflow_plugkit_testing.stores_sqlite import fresh_sqlite_uri
from mlflow_plugkit_testing.tracking import TrackingStoreConformance


class TestSqlAlchemyStore(TrackingStoreConformance):
    secret_uri = ("sqlite:////srv/x.db?password=hunter2secret", "hunter2secret")

    @pytest.fixture
    def store_uri_factory(self) -> Callable[[], str]:
        return fresh_sqlite_uri

    def store_builder(self, uri: str) -> Callable[..., Any]:
        return LazyTrackingStore
