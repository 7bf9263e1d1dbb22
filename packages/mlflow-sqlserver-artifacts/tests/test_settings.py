"""What a URI and the environment say, and what a URI must not say."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import append_to_uri_path, get_uri_scheme

from mlflow_plugkit.settings import InlineSecretWarning
from mlflow_sqlserver_artifacts.settings import PREFIX, DatabaseSettings, SqlServerSettings, read_settings
from mlflow_sqlserver_artifacts.urls import connect_arguments, database_url, odbc_keywords

HOST = "mssql+pyodbc://db.example.com:1433/models"
DRIVER = "driver=ODBC+Driver+18+for+SQL+Server"


def keywords(uri: str, **environ: str) -> dict[str, str]:
    settings = read_settings(uri, environ)
    assert isinstance(settings, SqlServerSettings)
    return odbc_keywords(settings)


def refused(uri: str, **environ: str) -> str:
    with pytest.raises(MlflowException) as caught:
        read_settings(uri, environ)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return str(caught.value)


def test_the_path_is_the_database_and_the_root_that_mlflow_appends_to() -> None:
    """MLflow appends a run's path before the query, and names the class by the scheme's first part."""
    uri = append_to_uri_path(f"{HOST}?{DRIVER}", "7", "run", "artifacts")
    assert get_uri_scheme(uri) == "mssql"
    settings = read_settings(uri, {})
    assert (settings.database, settings.root) == ("models", "7/run/artifacts")
    assert settings.location == f"{HOST}/7/run/artifacts"


@pytest.mark.parametrize("scheme", ["sql+postgresql", "sql+mariadb", "sql+mysql", "sql+sqlite"])
def test_other_databases_have_schemes_that_mlflow_leaves_alone(scheme: str) -> None:
    """None of MLflow's own schemes is taken over."""
    assert get_uri_scheme(f"{scheme}://host/database") == scheme


@pytest.mark.parametrize(
    "uri", ["sql+sqlite:///data/a.db", "sql+sqlite:/data/a.db/0/run", "sql+sqlite:///data/a.sqlite3"]
)
def test_a_sqlite_file_ends_at_its_suffix(uri: str) -> None:
    settings = read_settings(uri, {})
    assert settings.database in ("/data/a.db", "/data/a.sqlite3")
    assert settings.root == ("0/run" if uri.endswith("run") else "")


@pytest.mark.parametrize(
    "uri", ["sql+sqlite:///data/file", "sql+sqlite://host/a.db", "sql+postgresql://host", "mssql+pyodbc://host/"]
)
def test_a_uri_without_database_is_refused(uri: str) -> None:
    assert "Write" in refused(uri)


@pytest.mark.parametrize("host", ["h;Encrypt=no", "h{x", "h%0a"])
def test_a_host_cannot_smuggle_connection_keywords(host: str) -> None:
    assert "names no valid host" in refused(f"mssql+pyodbc://{host}/db")


def test_a_database_cannot_smuggle_connection_keywords() -> None:
    assert "names no valid database" in refused("mssql+pyodbc://h/db;Encrypt=no")


def test_tls_is_on_unless_loopback() -> None:
    assert keywords(HOST) | {"Encrypt": "yes", "TrustServerCertificate": "no"} == keywords(HOST)
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert keywords(f"mssql+pyodbc://{host}/db")["Encrypt"] == "no"
    assert connect_arguments(read_settings("sql+postgresql://h/db", {}))["sslmode"] == "verify-full"
    assert connect_arguments(read_settings("sql+mariadb://h/db", {}))["ssl"].check_hostname


@pytest.mark.parametrize(
    "query", ["Encrypt=no", "encrypt=optional", "TrustServerCertificate=yes", "trust-server-certificate=yes"]
)
def test_a_uri_cannot_weaken_tls(query: str) -> None:
    """A server resolves URIs that its clients named: only its environment may weaken TLS."""
    assert f"{PREFIX}_TLS" in refused(f"{HOST}?{query}")


def test_the_environment_can_weaken_tls() -> None:
    assert keywords(HOST, **{f"{PREFIX}_TLS": "require"})["TrustServerCertificate"] == "yes"
    assert keywords(f"{HOST}?Encrypt=no", **{f"{PREFIX}_TLS": "off"})["Encrypt"] == "no"


def test_a_uri_can_strengthen_tls() -> None:
    assert keywords(f"{HOST}?Encrypt=strict")["Encrypt"] == "strict"


@pytest.mark.parametrize("driver", ["/srv/evil.so", "FreeTDS", "SQL Server", "ODBC Driver 18 for SQL Server;X=y"])
def test_a_uri_cannot_name_another_library(driver: str) -> None:
    assert f"{PREFIX}_DRIVER" in refused(f"{HOST}?driver={driver}")


def test_the_environment_can_name_any_driver() -> None:
    assert keywords(HOST, **{f"{PREFIX}_DRIVER": "FreeTDS"})["driver"] == "FreeTDS"


@pytest.mark.parametrize("keyword", ["odbc_connect", "PWD", "Server", "AttachDbFileName", "Trace", "ServerCertificate"])
def test_keywords_beyond_the_allowed_ones_are_refused(keyword: str) -> None:
    refused(f"{HOST}?{keyword}=x")


@pytest.mark.parametrize(
    "name", ["password", "tls", "ca_file", "chunk_size", "create_tables", "host_name_in_certificate"]
)
def test_what_a_client_must_not_choose_is_no_option_of_a_uri(name: str) -> None:
    if name != "password":
        assert f"{PREFIX}_{name.upper()}" in refused(f"{HOST}?{name}=1")


def test_an_option_in_two_spellings_is_refused() -> None:
    assert "twice" in refused(f"{HOST}?Encrypt=yes&encrypt=strict")


def test_odbc_keywords_are_understood_in_microsofts_spelling() -> None:
    query = "ApplicationIntent=ReadOnly&MultiSubnetFailover=yes&ConnectRetryCount=3&authentication=ActiveDirectoryMsi"
    expected = {k: v[0] for k, v in parse_qs(query).items()}
    assert keywords(f"{HOST}?{query}").items() >= expected.items()


def test_an_inline_password_works_with_a_warning() -> None:
    """MLflow documents `mssql+pyodbc://user:pass@host`: it works, and says where the password ends up."""
    uri = "mssql+pyodbc://bob:p%40ss%3Bword@h/db?" + DRIVER
    with pytest.warns(InlineSecretWarning, match=f"{PREFIX}_PASSWORD"):
        settings = read_settings(uri, {})
    url = database_url(settings)
    assert (url.username, url.password) == ("bob", "p@ss;word")
    assert "p@ss" not in repr(url) + repr(settings) + str(settings.uri) + settings.location
    assert "refused" in refused(uri, MLFLOW_PLUGKIT_STRICT="true").lower()


def test_credentials_come_from_the_environment_or_a_file(tmp_path: object) -> None:
    file = f"{tmp_path}/password"
    with open(file, "w") as handle:
        handle.write("from-file\n")
    settings = read_settings(HOST, {f"{PREFIX}_USERNAME": "bob", f"{PREFIX}_PASSWORD_FILE": file})
    assert settings.password is not None
    assert (settings.username, settings.password.get_secret_value()) == ("bob", "from-file")


@pytest.mark.parametrize("query", ["schema=a.b", "table_prefix=a%27b", "schema=x%3Bdrop", f"table_prefix={'a' * 40}"])
def test_names_of_tables_are_plain(query: str) -> None:
    assert "letters" in refused(f"{HOST}?{query}")


@pytest.mark.parametrize("name", ["CHUNK_SIZE", "CONNECTIONS", "TIMEOUT", "STALE_AFTER"])
def test_numbers_have_bounds(name: str) -> None:
    assert name in refused(HOST, **{f"{PREFIX}_{name}": "0"})


def test_mssql_python_is_told_no_driver() -> None:
    assert "driver" not in keywords("mssql+mssqlpython://h/db")


def test_the_classes_differ_in_their_schemes() -> None:
    assert isinstance(read_settings("mssql://h/db", {}), SqlServerSettings)
    assert type(read_settings("sql+mariadb://h/db", {})) is DatabaseSettings
