"""MLflow's own database store, made lazy, keeps every rule of the model registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlflow_plugkit_testing.registry import ModelRegistryStoreConformance
from mlflow_plugkit_testing.stores_lazy import LazyRegistryStore
from mlflow_plugkit_testing.stores_sqlite import fresh_sqlite_uri


class TestSqlAlchemyStore(ModelRegistryStoreConformance):
    secret_uri = ("sqlite:////srv/x.db?password=hunter2secret", "hunter2secret")

    @pytest.fixture
    def store_uri_factory(self) -> Callable[[], str]:
        return fresh_sqlite_uri

    def store_builder(self, uri: str) -> Callable[..., Any]:
        return LazyRegistryStore
