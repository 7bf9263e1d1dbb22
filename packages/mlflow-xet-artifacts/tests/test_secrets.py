"""A whole run at DEBUG shows neither the token nor the short-lived ones of the Xet storage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_hub import FakeHub
from fake_hub.server import TOKEN, XET_TOKEN

from mlflow_plugkit_testing.server import fresh_database, plugin_env

RUN = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
for name in ("httpx2", "httpcore2", "huggingface_hub", "mlflow", "mlflow_xet_artifacts"):
    logging.getLogger(name).setLevel(logging.DEBUG)
from pathlib import Path
import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

uri, tracking, folder = sys.argv[1:]
mlflow.set_tracking_uri(tracking)
experiment = mlflow.create_experiment("secrets", artifact_location=uri)
with mlflow.start_run(experiment_id=experiment) as run:
    mlflow.log_text("small", "small.txt")
    Path(folder, "large.bin").write_bytes(b"x" * 2_000_000)
    mlflow.log_artifact(str(Path(folder, "large.bin")))
artifacts = get_artifact_repository(run.info.artifact_uri)
print(artifacts, vars(artifacts), artifacts._engine.backend, vars(artifacts._engine.backend), run.info.artifact_uri)
print(artifacts._engine.backend._hub.settings, mlflow.get_experiment(experiment).artifact_location)
artifacts.download_artifacts("", folder)
artifacts.delete_artifacts("small.txt")
missing = uri.replace("/me/", "/me/not-there-") if "buckets" in uri else uri.replace("me/", "me/not-there-")
for bad in (lambda: get_artifact_repository(missing).list_artifacts(),
            lambda: artifacts.download_artifacts("no/such/file", folder),
            lambda: get_artifact_repository(missing).log_artifact(str(Path(folder, "large.bin")))):
    try:
        bad()
        raise SystemExit("an error was expected")
    except Exception as error:
        traceback.print_exc()
        print(repr(error), error.__cause__, vars(error))
print("finished")
"""


@pytest.mark.parametrize("kind", ["repository", "bucket"])
@pytest.mark.parametrize("source", ["variable", "file", "login"])
def test_no_credential_is_shown(own_hub: FakeHub, tmp_path: Path, kind: str, source: str) -> None:
    """The token comes from HF_TOKEN, from HF_TOKEN_FILE or from what `hf auth login` stored."""
    uri = "xet://me/models/main" if kind == "repository" else "xet://buckets/me/bucket"
    home = tmp_path / "home"
    home.mkdir()
    env = dict(plugin_env(env={"HF_HOME": str(home), "HF_ENDPOINT": own_hub.url, "HF_DEBUG": "1", "RUST_LOG": "debug"}))
    if source != "variable":
        del env["HF_TOKEN"]
        (home / "token").write_text(TOKEN)
    if source == "file":
        (home / "token").rename(tmp_path / "secret")
        env["HF_TOKEN_FILE"] = str(tmp_path / "secret")
    command = [sys.executable, "-c", RUN, uri, fresh_database(tmp_path), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    shown = done.stdout + done.stderr
    assert "finished" in done.stdout, shown[-3000:]
    assert "DEBUG" in shown
    logs = "".join(f.read_text(errors="replace") for f in home.rglob("*") if f.is_file() and f.name != "token")
    for secret in (TOKEN, XET_TOKEN):
        for form in (secret, quote(secret, safe="")):
            assert form not in shown, shown[max(0, shown.index(form) - 300) : shown.index(form)]
            assert form not in logs
