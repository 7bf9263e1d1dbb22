"""A model's life in the database, its secrets, and the administrator's command."""

from __future__ import annotations

import inspect
import io
import logging
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
import servers
from conftest import PREFIX, admin, new_database
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_plugkit_testing.server import fresh_database
from mlflow_sqlserver_artifacts.__main__ import main
from mlflow_sqlserver_artifacts.schema import forget_tables


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[str]:
    uri = fresh_database(tmp_path / "tracking")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def test_a_sklearn_model_is_logged_loaded_and_collected(artifact_uri: str, tracking: str) -> None:
    """`mlflow.sklearn.log_model`, `load_model`, then `mlflow gc` of the deleted run."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    experiment = mlflow.create_experiment("sql", artifact_location=artifact_uri)
    fitted = LinearRegression().fit(np.array([[0.0], [1.0]]), np.array([1.0, 3.0]))
    name = "name" if "name" in inspect.signature(mlflow.sklearn.log_model).parameters else "artifact_path"
    with mlflow.start_run(experiment_id=experiment) as run:
        info = mlflow.sklearn.log_model(fitted, **{name: "model"}, pip_requirements=[])
        mlflow.log_text("notes", "notes.txt")
    assert mlflow.sklearn.load_model(info.model_uri).predict([[2.0]])[0] == pytest.approx(5.0)
    mlflow.delete_run(run.info.run_id)
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", tracking, "--run-ids", run.info.run_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert get_artifact_repository(run.info.artifact_uri).list_artifacts() == []


def test_a_whole_run_shows_no_password(
    postgresql: servers.DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gives_up_soon: None
) -> None:
    """At DEBUG, with SQLAlchemy's and the drivers' own loggers, with an inline password, and in failures."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for name in ("sqlalchemy.engine", "sqlalchemy.pool", "psycopg"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
    shown = []
    try:
        plain = postgresql.uri(new_database(postgresql))
        inline = plain.replace("://", f"://{postgresql.user}:{quote(servers.PASSWORD, safe='')}@")
        (tmp_path / "a.txt").write_text("a")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            repository = get_artifact_repository(inline)
        shown += [str(w.message) for w in caught]
        repository.log_artifact(str(tmp_path / "a.txt"))
        (tmp_path / "target").mkdir()
        repository.download_artifacts("a.txt", str(tmp_path / "target"))
        shown += [
            repr(repository),
            repository.artifact_uri,
            repr(repository.__dict__),
            repr(repository._engine.backend.settings),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = get_artifact_repository(inline.replace(f":{postgresql.port}/", f":{servers.free_port()}/"))
        for call in (wrong.list_artifacts, lambda: repository.download_artifacts("missing", str(tmp_path))):
            try:
                call()
            except MlflowException:
                shown.append(traceback.format_exc())
        repository.delete_artifacts()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    shown.append(stream.getvalue())
    for text in shown:
        for secret in (servers.PASSWORD, quote(servers.PASSWORD, safe=""), quote(servers.PASSWORD)):
            assert secret not in text


def test_a_server_opens_no_database_that_a_client_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Inside `mlflow server`, only its own destination is connected to, unless a host is listed."""
    own = f"sql+sqlite://{tmp_path}/own.db"
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", own)
    get_artifact_repository(f"{own}/0/run").list_artifacts()
    for uri in (f"sql+sqlite://{tmp_path}/other.db", "mssql+pyodbc://evil/db", "sql+postgresql://evil/db"):
        with pytest.raises(MlflowException) as caught:
            get_artifact_repository(uri)
        assert caught.value.error_code == "PERMISSION_DENIED"
    monkeypatch.setenv("MLFLOW_PLUGKIT_ALLOWED_HOSTS", "sql.example.com")
    get_artifact_repository("mssql+pyodbc://sql.example.com/db")


def test_a_dba_creates_the_tables_and_a_user_needs_no_more_than_the_grants(
    postgresql: servers.DatabaseServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """What `create-tables` prints is run by the superuser; the user then stores, lists, reads and deletes."""
    uri = postgresql.uri(new_database(postgresql))
    user = f"user_{servers.free_port()}"
    assert main(["create-tables", "--url", uri, "--user", user]) == 0
    printed = capsys.readouterr().out
    database = uri.rpartition("/")[2]
    with admin(postgresql).connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {user} PASSWORD '{user}'")
    import psycopg

    login = {"host": "127.0.0.1", "port": postgresql.port, "user": postgresql.user, "password": servers.PASSWORD}
    with psycopg.connect(dbname=database, **login) as raw:
        raw.execute(printed)
    monkeypatch.setenv(f"{PREFIX}_USERNAME", user)
    monkeypatch.setenv(f"{PREFIX}_PASSWORD", user)
    forget_tables()
    repository = get_artifact_repository(uri)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "target").mkdir()
    repository.log_artifact(str(tmp_path / "a.txt"), "folder")
    assert Path(repository.download_artifacts("folder/a.txt", str(tmp_path / "target"))).read_text() == "a"
    repository.delete_artifacts()
    assert repository.list_artifacts() == []


def test_the_command_creates_and_cleans(artifact_uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create-tables", "--execute", "--url", artifact_uri]) == 0
    assert main(["create-tables", "--execute", "--url", artifact_uri]) == 0
    assert main(["clean", "--url", artifact_uri]) == 0
    assert "Removed 0" in capsys.readouterr().out


def test_the_command_ends_with_one_line_of_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--url", "sql+postgresql://host"]) == 1
    assert "Write sql+postgresql://host:port/database" in capsys.readouterr().err


def test_the_printed_sql_server_tables_need_no_driver(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create-tables", "--url", "mssql+pyodbc://host/db?schema=ml", "--user", "svc"]) == 0
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON ml.mlflow_artifact_chunks TO [svc];" in capsys.readouterr().out
