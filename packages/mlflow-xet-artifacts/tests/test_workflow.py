"""A scikit-learn model is logged, loaded and garbage-collected where the run's artifacts lie on the Hub."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from fake_hub import FakeHub

from mlflow_plugkit_testing.server import fresh_database, plugin_env, run_cli


@pytest.mark.parametrize("kind", ["repository", "bucket"])
def test_a_model_is_logged_loaded_and_collected(
    hub: FakeHub, repo_id: str, bucket_id: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    uri = f"xet://{repo_id}/main" if kind == "repository" else f"xet://buckets/{bucket_id}"
    stored: Callable[[], list[str]] = (
        (lambda: [path for path in hub.state.repository("model", repo_id).at("main").files if path != ".gitattributes"])
        if kind == "repository"
        else (lambda: list(hub.state.buckets[bucket_id]))
    )
    tracking = fresh_database(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    mlflow.set_tracking_uri(tracking)
    try:
        experiment = mlflow.create_experiment("sklearn", artifact_location=uri)
        features, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
        model = linear_model.LogisticRegression().fit(features, labels)
        name = "name" if "name" in inspect.signature(mlflow.sklearn.log_model).parameters else "artifact_path"
        with mlflow.start_run(experiment_id=experiment) as run:
            info = mlflow.sklearn.log_model(model, **{name: "model"}, pip_requirements=[])
            mlflow.log_text("note", "note.txt")
        assert list(mlflow.sklearn.load_model(info.model_uri).predict(features)) == list(model.predict(features))
        assert list(mlflow.pyfunc.load_model(info.model_uri).predict(features)) == list(model.predict(features))
        mlflow.delete_run(run.info.run_id)
    finally:
        mlflow.set_tracking_uri(None)
    run_files = [path for path in stored() if run.info.run_id in path]
    assert run_files
    command = ["mlflow", "gc", "--backend-store-uri", tracking, "--run-ids", run.info.run_id]
    done = run_cli(command, env=plugin_env(env={"MLFLOW_TRACKING_URI": tracking}), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not [path for path in stored() if run.info.run_id in path]
