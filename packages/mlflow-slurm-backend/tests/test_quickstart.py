"""The repository's example project, a scikit-learn training, through MLflow's own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from slurm_cluster import Cluster

from mlflow_slurm_backend.cli import main

EXAMPLE = Path(__file__).parents[3] / "examples" / "quickstart" / "project"


def mlflow_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlflow", "run", "-b", "slurm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=dict(os.environ))


def test_the_example_runs_from_the_command_line(slurm: Cluster, store: str, tmp_path: Path) -> None:
    """`mlflow run -b slurm --backend-config slurm.json` waits, shows the output, and the run holds its metrics."""
    config = tmp_path / "slurm.json"
    config.write_text(json.dumps({"partition": "debug", "time": "10:00", "array": {"alpha": [0.0001, 0.001]}}))
    pytest.importorskip("sklearn", reason="scikit-learn, which the project trains with, is not installed")
    done = mlflow_run("--backend-config", str(config), "--env-manager", "local", "-P", "epochs=2", str(EXAMPLE))
    assert done.returncode == 0, done.stderr[-3000:]
    runs = mlflow.MlflowClient().search_runs(["0"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert sorted(run.data.params["alpha"] for run in children) == ["0.0001", "0.001"]
    for run in children:
        assert 0.8 < run.data.metrics["accuracy"] <= 1
        assert run.data.metrics["slurm.peak_memory_bytes"] > 20e6
        assert "Running command" in mlflow.artifacts.load_text(f"{run.info.artifact_uri}/slurm/stderr.log")
    assert "[0] " in done.stderr


def test_the_command_line_detaches_and_attaches(slurm: Cluster, store: str, project: Path, tmp_path: Path) -> None:
    """With `detach` it ends after the submission; a given run is used; `mlflow-slurm attach` records the end."""
    python = tmp_path / "fake"
    python.write_text("#!/bin/bash\necho from the job\nexit 9\n")
    python.chmod(0o755)
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    config = json.dumps({"python": str(python), "detach": True})
    done = mlflow_run("--backend-config", config, "--run-id", run_id, str(project))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [run.info.run_id for run in mlflow.MlflowClient().search_runs(["0"])] == [run_id]
    told = CliRunner().invoke(main, ["attach", run_id])
    assert told.exit_code == 1
    assert "from the job" in told.output
    assert "FAILED" in told.output
    assert mlflow.get_run(run_id).data.tags["slurm.exit_code"] == "9:0"
    assert "FAILED" in CliRunner().invoke(main, ["status", run_id]).output
    assert CliRunner().invoke(main, ["cancel", "nonsense"]).exit_code == 1


def test_the_command_line_reports_a_failure(slurm: Cluster, store: str, project: Path, tmp_path: Path) -> None:
    """A job that fails makes `mlflow run` fail, as with MLflow's local backend."""
    python = tmp_path / "fake"
    python.write_text("#!/bin/bash\nexit 9\n")
    python.chmod(0o755)
    done = mlflow_run("--backend-config", json.dumps({"python": str(python)}), "--run-name", "named", str(project))
    assert done.returncode == 1
    assert "failed: Slurm job" in done.stderr
    assert mlflow.MlflowClient().search_runs(["0"])[0].info.run_name == "named"
