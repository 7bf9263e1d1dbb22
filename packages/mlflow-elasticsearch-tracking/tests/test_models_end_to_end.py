"""Models and datasets by MLflow's public functions, on the store itself and through a real server, and `mlflow gc`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.server import MlflowServer, fresh_database, plugin_env

pytest.importorskip("sklearn", reason="the workflow needs scikit-learn")
SECONDS = 240


@pytest.fixture(params=["direct", "server"])
def uris(request: pytest.FixtureRequest, prefixes: Prefixes, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URI to work with, and the store's."""
    uri = prefixes.fresh_uri()
    prefixes.opened(uri, request)
    if request.param == "direct":
        yield uri, uri
    else:
        options = ["--backend-store-uri", uri, "--registry-store-uri", fresh_database(tmp_path, "models.db")]
        root = ["--default-artifact-root", (tmp_path / "artifacts").as_uri(), "--workers", "2"]
        with MlflowServer([*options, *root], folder=tmp_path) as server:
            yield server.url, uri
    prefixes.closed(request)


@pytest.fixture
def facts(uris: tuple[str, str], tmp_path: Path) -> dict[str, Any]:
    """What the workflow read back."""
    script = Path(__file__).with_name("models_workflow.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *uris],
        cwd=tmp_path, env=plugin_env(), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6_000:]
    read: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return read


def test_a_workflow_reads_back_what_it_wrote(facts: dict[str, Any]) -> None:
    """Autologging, log_model, log_input, metrics of models, searches, evaluation datasets; then gc cleans up."""
    assert facts["autologged"] == {"params": True, "context": ["train"], "status": "READY", "params of model": True}
    logged = facts["logged"]
    assert logged["predicts"] is True
    assert logged["model"] == ["clf", {"depth": "3"}, "new", False, "READY"]
    assert sorted(logged["metrics"]) == [["acc", 0.9, 0, "train-set"], ["auc", 0.7, 2, None], ["f1", 0.8, 2, None]]
    assert logged["inputs"] == [["train-set", ["training", "v"]]]
    assert logged["models"] == [[True], [True]]
    assert logged["found"] == [["clf"], ["clf"], True]
    assert facts["external"] == {"params": {"p": "1", "n": "9"}, "status": "FAILED"}
    assert facts["evaluated"] == {
        "records": [f"{n}+{n}" for n in range(5)],
        "merged": [1, 1, 1, 1, 2],
        "profile": {"num_records": 5},
        "shared": True,
        "experiments": True,
        "tags": ["new"],
        "found": ["evals"],
        "score": 1.0,
        "left": 0,
    }
    assert facts["gc"]["exit code"] == 0, facts["gc"]["output"]
    assert f"Run with ID {logged['run_id']} has been permanently deleted" in facts["gc"]["output"]
    if facts["gc"]["of models"]:  # MLflow 3.6 leaves models alone
        assert f"Logged model with ID {logged['model_id']} has been permanently deleted" in facts["gc"]["output"]
