"""The plugin keeps every rule of the conformance kit on PostgreSQL, MariaDB and SQLite, also behind a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import servers
from conftest import PREFIX, new_database

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.artifacts_faults import ArtifactFaultConformance
from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.faults import FaultProxy
from mlflow_plugkit_testing.server import plugin_env
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


class ProxiedSqlArtifacts(ProxiedArtifactsConformance):
    """The destination names no user and no password: both are in the server's environment."""

    @pytest.fixture(scope="class")
    @classmethod
    def database(cls) -> servers.DatabaseServer:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls, database: servers.DatabaseServer) -> str:
        return database.uri(new_database(database))

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, database: servers.DatabaseServer) -> Mapping[str, str]:
        login = {f"{PREFIX}_USERNAME": database.user, f"{PREFIX}_PASSWORD": servers.PASSWORD}
        return plugin_env(env=login)

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls) -> tuple[str, ...]:
        return (servers.PASSWORD,)


class TestProxiedPostgresql(ProxiedSqlArtifacts):
    @pytest.fixture(scope="class")
    @classmethod
    def database(cls, postgresql: servers.DatabaseServer) -> servers.DatabaseServer:
        return postgresql


class TestProxiedMariadb(ProxiedSqlArtifacts):
    @pytest.fixture(scope="class")
    @classmethod
    def database(cls, mariadb: servers.DatabaseServer) -> servers.DatabaseServer:
        return mariadb


class SqlFaults(ArtifactFaultConformance):
    fault_protocol = "tcp"

    @pytest.fixture
    def artifact_uri(self, fresh_uri: Callable[[], str], gives_up_soon: None) -> str:
        return fresh_uri()

    @pytest.fixture
    def faulty_uri(self, artifact_uri: str, upstream: tuple[str, int], proxy: FaultProxy) -> str:
        return artifact_uri.replace(f":{upstream[1]}/", f":{proxy.port}/")


class TestPostgresqlFaults(SqlFaults):
    @pytest.fixture
    def database_kind(self) -> str:
        return "postgresql"

    @pytest.fixture
    def upstream(self, postgresql: servers.DatabaseServer) -> tuple[str, int]:
        return "127.0.0.1", postgresql.port


class TestMariadbFaults(SqlFaults):
    @pytest.fixture
    def database_kind(self) -> str:
        return "mariadb"

    @pytest.fixture
    def upstream(self, mariadb: servers.DatabaseServer) -> tuple[str, int]:
        return "127.0.0.1", mariadb.port


class TestPackaging(PackagingConformance):
    distribution = "mlflow-sqlserver-artifacts"
