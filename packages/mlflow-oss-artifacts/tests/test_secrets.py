"""A whole run at DEBUG, in a process of its own: no credential is in a log line, a repr, an error or a stored URI."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import KEY_ID, KEY_SECRET
from oss_emulator import Emulator, MetadataService

RUN = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pathlib import Path

folder = Path(sys.argv[1])
mlflow.set_tracking_uri(f"sqlite:///{folder}/db")
mlflow.create_experiment("e", artifact_location="oss://artifacts/e?part_size=102400&multipart_threshold=204800")
mlflow.set_experiment("e")
for logger in logging.root.manager.loggerDict.values():
    logger.disabled = False  # MLflow 2's migrations configure logging anew
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, force=True)
(folder / "large.bin").write_bytes(bytes(300_000))
with mlflow.start_run() as run:
    mlflow.log_text("hello", "notes/hello.txt")
    mlflow.log_artifact(str(folder / "large.bin"))
print(run.info.artifact_uri, mlflow.get_experiment_by_name("e"))
mlflow.artifacts.download_artifacts(run.info.artifact_uri, dst_path=str(folder))
repository = get_artifact_repository(run.info.artifact_uri)
print(repr(repository), repository, vars(repository), repository._engine.backend, repository._engine.backend._settings)
repository._engine.backend.presign_put("x", 60, None)
for broken in ("oss://missing/x", "oss://artifacts/x"):
    try:
        get_artifact_repository(broken)._download_file("a", str(folder / "b"))
        print("no error")
    except Exception:
        traceback.print_exc()
import os
for name, value in (("MLFLOW_OSS_SIGNATURE", "v1"), ("OSS_REGION", "cn-wrong"), ("MLFLOW_OSS_ENDPOINT_URL", "http://127.0.0.1:1")):
    os.environ[name] = value
    try:
        repository = get_artifact_repository("oss://artifacts/e")
        repository._engine.backend.retry_attempts = 1
        print(get_artifact_repository("oss://artifacts/e").list_artifacts())
    except Exception:
        logging.exception("a run went wrong")
"""


def shown(env: Mapping[str, str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)],
        env={**os.environ, **env, "MLFLOW_PLUGKIT_STATE_DIR": str(folder / "state")},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def leaked(text: str, secrets: tuple[str, ...]) -> list[str]:
    return [secret for secret in secrets for form in {secret, quote(secret, safe=""), quote(secret)} if form in text]


def test_a_run_with_an_access_key_shows_none_of_it(
    oss_env: Mapping[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    text = shown({}, tmp_path)
    assert "urllib3.connectionpool" in text, "the run must have been at DEBUG"
    assert not leaked(text, (KEY_ID, KEY_SECRET))
    assert emulator.counts["CompleteMultipartUpload"] == 1


def test_a_run_with_a_role_shows_neither_key_nor_token(
    oss_env: Mapping[str, str], emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With V1 signatures, whose strings to sign hold the token in clear."""
    monkeypatch.delenv("MLFLOW_OSS_KEY_ID")
    monkeypatch.delenv("MLFLOW_OSS_KEY_SECRET")
    with MetadataService(emulator) as service:
        role = {"MLFLOW_OSS_RAM_ROLE": "auto", "MLFLOW_OSS_METADATA_URL": service.url}
        text = shown(role | {"MLFLOW_OSS_SIGNATURE": "v1"}, tmp_path)
        used = [value for key in service.issued for name, value in key.items() if name in SECRET_FIELDS]
        assert used
        assert not leaked(text, (*used, service.session))
        assert emulator.versions["v1"] > 5


SECRET_FIELDS = ("AccessKeyId", "AccessKeySecret", "SecurityToken")
