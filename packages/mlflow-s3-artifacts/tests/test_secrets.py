"""No credential in use is shown anywhere: not at DEBUG, not by boto3, not in an error."""

from __future__ import annotations

import io
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import Source
from mlflow_plugkit_testing.server import fresh_database
from mlflow_s3_artifacts.plugin import artifact_repository

KEY, SECRET, TOKEN = "AKIAPLUGKITSECRETS", "moto/secret+value=Q7", "FwoGZXIvYXdzEplugkit/session+token=="


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All records at DEBUG, also those of loggers that are made later or do not propagate."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    silent = [logging.getLogger(n) for n in list(logging.root.manager.loggerDict)]
    silent = [logger for logger in silent if not logger.propagate]
    for logger in silent:
        logger.addHandler(handler)
    yield text
    root.setLevel(before)
    for logger in [root, *silent]:
        logger.removeHandler(handler)


@pytest.mark.usefixtures("aws_environment", "data_plane")
def test_a_whole_run_shows_no_credential(
    moto: Any, everything_logged: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("SESSION_TOKEN", TOKEN)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_MULTIPART_THRESHOLD", "5")
    monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_PART_SIZE", "5")
    uri = f"s3+http://127.0.0.1:{moto.port}/plugkit/secrets"
    shown = [_whole_run(uri, tmp_path), _failures(uri, moto.port, tmp_path), _stored(uri, tmp_path)]
    terminal = capfd.readouterr()
    logged = everything_logged.getvalue()
    assert "PUT" in logged, "nothing was logged at DEBUG: this test sees nothing"
    for text in (*shown, logged, terminal.out, terminal.err):
        for secret in (KEY, SECRET, TOKEN):
            assert secret not in text
            assert quote(secret, safe="") not in text


def _whole_run(uri: str, folder: Path) -> str:
    """Every operation once; what repr and str say afterwards."""
    (folder / "up").mkdir()
    (folder / "up" / "small.txt").write_bytes(b"x")
    (folder / "up" / "middle.bin").write_bytes(os.urandom(2 * 1024 * 1024))
    (folder / "up" / "large.bin").write_bytes(os.urandom(6 * 1024 * 1024))
    (folder / "down").mkdir()
    repository = artifact_repository(uri)
    repository.log_artifacts(str(folder / "up"), "a")
    repository.list_artifacts("a")
    repository.download_artifacts("a", str(folder / "down"))
    backend = repository._engine.backend
    backend.presign_get("a/small.txt", 60)
    backend.put("b", Source(data=b"y"), None)
    repository.delete_artifacts("a")
    return f"{repository!r} {repository} {backend!r} {backend.settings!r} {backend.connection!r} {vars(backend)}"


def _failures(uri: str, port: int, folder: Path) -> str:
    """The tracebacks of what goes wrong."""
    calls: list[Callable[[], Any]] = [
        lambda: artifact_repository(uri).download_artifacts("missing", str(folder)),
        lambda: artifact_repository(f"s3+http://127.0.0.1:{port}/no-bucket").log_artifact(__file__),
        lambda: artifact_repository("s3+http://127.0.0.1:9/closed").list_artifacts(),
        lambda: artifact_repository(f"s3+http://{KEY}:{quote(SECRET, safe='')}@127.0.0.1:{port}/plugkit"),
        lambda: artifact_repository(uri).list_artifacts("../outside"),
    ]
    return "\n".join(_traceback_of(call) for call in calls)


def _traceback_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except MlflowException:
        return traceback.format_exc()
    raise AssertionError("the call went well")


def _stored(uri: str, folder: Path) -> str:
    """What MLflow's tracking store keeps of the location."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(fresh_database(folder / "tracking"))
    try:
        experiment = mlflow.get_experiment(mlflow.create_experiment("secrets", artifact_location=uri))
        with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
            mlflow.log_text("x", "x.txt")
        return f"{experiment.artifact_location} {run.info.artifact_uri}"
    finally:
        with suppress(Exception):  # no run may stay active, whatever failed above
            mlflow.end_run()
        mlflow.set_tracking_uri(before)
