"""What databases and drivers say becomes MLflow's codes, with a hint; real servers where one can be had."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import servers
import sqlalchemy as sa
from conftest import PREFIX, admin, new_database
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import exc as sa_exc

from mlflow_sqlserver_artifacts.errors import SQL_ERRORS, database_error, is_retryable

ODBC = "[Microsoft][ODBC Driver 18 for SQL Server]"


class OdbcError(Exception):
    """As pyodbc raises them: SQLSTATE, then the driver's text with the native number."""


@pytest.mark.parametrize(
    ("state", "text", "code", "retryable"),
    [
        (
            "28000",
            f"[28000] {ODBC}[SQL Server]Login failed for user 'bob'. (18456) (SQLDriverConnect)",
            "UNAUTHENTICATED",
            False,
        ),
        (
            "42000",
            f'[42000] {ODBC}[SQL Server]Cannot open database "x" requested by the login. (4060)',
            "RESOURCE_DOES_NOT_EXIST",
            False,
        ),
        (
            "IM002",
            "[IM002] [unixODBC][Driver Manager]Data source name not found (0) (SQLDriverConnect)",
            "FEATURE_DISABLED",
            False,
        ),
        (
            "01000",
            "[01000] [unixODBC][Driver Manager]Can't open lib 'ODBC Driver 18 for SQL Server' : file not found (0)",
            "FEATURE_DISABLED",
            False,
        ),
        (
            "08001",
            f"[08001] {ODBC}SSL Provider: [error:0A000086:SSL routines::certificate verify failed:self-signed] (-1)",
            "PERMISSION_DENIED",
            False,
        ),
        (
            "08001",
            f"[08001] {ODBC}TCP Provider: Error code 0x2749 (10061) (SQLDriverConnect)",
            "TEMPORARILY_UNAVAILABLE",
            True,
        ),
        ("HYT00", f"[HYT00] {ODBC}Login timeout expired (0) (SQLDriverConnect)", "TEMPORARILY_UNAVAILABLE", True),
        (
            "40001",
            f"[40001] {ODBC}[SQL Server]Transaction (Process ID 52) was deadlocked (1205)",
            "TEMPORARILY_UNAVAILABLE",
            True,
        ),
        (
            "42000",
            f"[42000] {ODBC}[SQL Server]The INSERT permission was denied on the object 'x' (229)",
            "PERMISSION_DENIED",
            False,
        ),
        (
            "42000",
            f"[42000] {ODBC}[SQL Server]CREATE TABLE permission denied in database 'x'. (262)",
            "PERMISSION_DENIED",
            False,
        ),
        ("42S02", f"[42S02] {ODBC}[SQL Server]Invalid object name 'x'. (208)", "RESOURCE_DOES_NOT_EXIST", False),
        ("42000", f"[42000] {ODBC}[SQL Server]Could not allocate space for object (1105)", "RESOURCE_EXHAUSTED", False),
        (
            "42000",
            f"[42000] {ODBC}[SQL Server]The transaction log for database 'x' is full (9002)",
            "RESOURCE_EXHAUSTED",
            False,
        ),
        (
            "HY000",
            f"[HY000] {ODBC}[SQL Server]Database 'x' on server 'y' is not currently available. (40613)",
            "TEMPORARILY_UNAVAILABLE",
            True,
        ),
        ("HY000", f"[HY000] {ODBC}[SQL Server]The service is currently busy. (40501)", "TEMPORARILY_UNAVAILABLE", True),
        (
            "08S01",
            f"[08S01] {ODBC}TCP Provider: Error code 0x68 (104) (SQLExecDirectW)",
            "TEMPORARILY_UNAVAILABLE",
            True,
        ),
    ],
)
def test_errors_of_sql_server_are_known(state: str, text: str, code: str, retryable: bool) -> None:
    """The texts are those of Microsoft's driver as its documentation and its users' reports show them."""
    wrapped = sa_exc.DBAPIError("SELECT ?", ("secret",), OdbcError(state, text))
    error = database_error(wrapped, "mssql")
    row = SQL_ERRORS.row_for(error)
    assert row is not None, f"no row for {error.code}"
    assert (row.code, is_retryable(error)) == (code, retryable), error.code
    assert "secret" not in str(error), "the parameters of a statement must not be shown"


def test_a_damaged_chunk_is_told_from_other_constraints() -> None:
    text = 'The INSERT statement conflicted with the CHECK constraint "mlflow_artifact_chunks_sound". (547)'
    sound = sa_exc.IntegrityError("", (), OdbcError("23000", text))
    other = sa_exc.IntegrityError("", (), OdbcError("23000", "Violation of PRIMARY KEY constraint. (2627)"))
    assert (database_error(sound, "mssql").code, database_error(other, "mssql").code) == ("damaged", "constraint")


def test_an_unknown_error_stays_visible() -> None:
    error = database_error(sa_exc.DBAPIError("", (), OdbcError("42000", "[42000] Something new (99999)")), "mssql")
    assert SQL_ERRORS.row_for(error) is None
    assert not is_retryable(error)


def code_of(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(MlflowException) as caught:
        call()
    return str(caught.value.error_code), str(caught.value)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gives_up_soon: None
) -> servers.DatabaseServer:
    found: servers.DatabaseServer = request.getfixturevalue(request.param)
    monkeypatch.setenv(f"{PREFIX}_USERNAME", found.user)
    monkeypatch.setenv(f"{PREFIX}_PASSWORD", servers.PASSWORD)
    return found


def test_a_wrong_password_is_unauthenticated(server: servers.DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}_PASSWORD", "not-the-password")
    code, message = code_of(get_artifact_repository(server.uri(new_database(server))).list_artifacts)
    assert code == "UNAUTHENTICATED", message
    assert f"{PREFIX}_PASSWORD" in message
    assert "not-the-password" not in message


def test_a_missing_database_is_named(server: servers.DatabaseServer) -> None:
    code, message = code_of(get_artifact_repository(server.uri("nowhere")).list_artifacts)
    assert code == "RESOURCE_DOES_NOT_EXIST", message
    assert "Create the database" in message


def test_a_server_that_is_down_is_temporarily_unavailable(server: servers.DatabaseServer) -> None:
    uri = server.uri("db").replace(f":{server.port}/", f":{servers.free_port()}/")
    code, message = code_of(get_artifact_repository(uri).list_artifacts)
    assert code == "TEMPORARILY_UNAVAILABLE", message


def test_a_server_without_tls_is_refused(server: servers.DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}_TLS", "verify")
    code, message = code_of(get_artifact_repository(server.uri(new_database(server))).list_artifacts)
    assert code == "PERMISSION_DENIED", message
    assert f"{PREFIX}_TLS" in message


def test_a_user_without_rights_is_told_what_to_grant(
    server: servers.DatabaseServer, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    uri = server.uri(new_database(server))
    with admin(server).connect() as connection:
        name = f"reader_{servers.free_port()}"
        host = "" if "postgresql" in server.scheme else "@'127.0.0.1'"
        connection.exec_driver_sql(
            f"CREATE USER {name}{host} " + (f"PASSWORD '{name}'" if not host else f"IDENTIFIED BY '{name}'")
        )
        if host:
            connection.exec_driver_sql(f"GRANT SELECT ON {uri.rpartition('/')[2]}.* TO {name}{host}")
    monkeypatch.setenv(f"{PREFIX}_USERNAME", name)
    monkeypatch.setenv(f"{PREFIX}_PASSWORD", name)
    file = f"{tmp_path}/a.txt"
    with open(file, "w") as handle:
        handle.write("a")
    code, message = code_of(lambda: get_artifact_repository(uri).log_artifact(file))
    assert code == "PERMISSION_DENIED", message
    assert "create-tables" in message


def test_a_missing_driver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyodbc", None)
    code, message = code_of(get_artifact_repository("mssql+pyodbc://127.0.0.1:1/db").list_artifacts)
    assert code == "FEATURE_DISABLED"
    assert "mlflow-sqlserver-artifacts[pyodbc]" in message


def test_a_missing_odbc_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real driver manager's answer."""
    pytest.importorskip("pyodbc", reason="pyodbc needs Debian's libodbc2", exc_type=ImportError)
    monkeypatch.setenv(f"{PREFIX}_DRIVER", "No Such Driver")
    code, message = code_of(get_artifact_repository("mssql+pyodbc://127.0.0.1:1/db").list_artifacts)
    assert code == "FEATURE_DISABLED", message
    assert "odbcinst" in message


def test_every_row_has_a_hint_and_a_code_of_mlflow() -> None:
    from mlflow.protos.databricks_pb2 import ErrorCode

    assert all(row.hint and row.code in ErrorCode.keys() for row in SQL_ERRORS.rows)  # noqa: SIM118 # protobuf's


def test_a_pool_that_is_used_up_is_known() -> None:
    assert SQL_ERRORS.row_for(sa.exc.TimeoutError("QueuePool limit")).code == "TEMPORARILY_UNAVAILABLE"  # type: ignore[union-attr]
