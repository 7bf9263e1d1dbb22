"""The state machines, with MLflow's own store on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_plugkit_testing.differential_rules import DifferentialRegistryRules, DifferentialTrackingRules
from mlflow_plugkit_testing.stores_lazy import LazyRegistryStore, LazyTrackingStore
from mlflow_plugkit_testing.stores_sqlite import fresh_sqlite_uri


class TestSqlAlchemyStoreBesideItself(DifferentialTrackingRules):
    @pytest.fixture
    def store_uri_factory(self, tmp_path: Path) -> Callable[[], str]:
        return lambda: fresh_sqlite_uri(tmp_path)

    def store_builder(self, uri: str) -> Callable[..., Any]:
        return LazyTrackingStore


class TestSqlAlchemyRegistryBesideItself(DifferentialRegistryRules):
    @pytest.fixture
    def store_uri_factory(self, tmp_path: Path) -> Callable[[], str]:
        return lambda: fresh_sqlite_uri(tmp_path)

    def store_builder(self, uri: str) -> Callable[..., Any]:
        return LazyRegistryStore
