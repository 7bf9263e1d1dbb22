"""The plugin keeps every rule of the conformance kit on PostgreSQL, MariaDB and SQLite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import servers

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class SqlArtifacts(ArtifactRepositoryConformance):
    @pytest.fixture
    def artifact_uri(self, fresh_uri: Callable[[], str]) -> str:
        return fresh_uri()

    @pytest.fixture
    def secrets(self, database_kind: str) -> tuple[str, ...]:
        return () if database_kind == "sqlite" else (servers.PASSWORD,)


class TestPostgresqlArtifacts(SqlArtifacts):
    @pytest.fixture
    def database_kind(self) -> str:
        return "postgresql"


class TestMariadbArtifacts(SqlArtifacts):
    @pytest.fixture
    def database_kind(self) -> str:
        return "mariadb"


class TestSqliteArtifacts(SqlArtifacts):
    @pytest.fixture
    def database_kind(self) -> str:
        return "sqlite"


class TestPackaging(PackagingConformance):
    distribution = "mlflow-sqlserver-artifacts"
