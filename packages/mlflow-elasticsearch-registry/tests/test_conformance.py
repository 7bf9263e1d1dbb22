"""The store keeps the rules of MLflow's model registry stores; the package those of plugins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlflow_plugkit_testing.registry import ModelRegistryStoreConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class TestModelRegistryStore(ModelRegistryStoreConformance):
    secret_uri = ("elasticsearch://user:Geheim-4711@127.0.0.1:9200/x", "Geheim-4711")

    @pytest.fixture
    def store_uri_factory(self, fresh_uri: Callable[[], str]) -> Callable[[], str]:
        return fresh_uri


class TestPackaging(PackagingConformance):
    distribution = "mlflow-elasticsearch-registry"
