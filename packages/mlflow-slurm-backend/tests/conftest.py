"""The clusters, started once for all tests, and a project with a store for each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from slurm_cluster import Cluster, missing, until  # the line above makes the next importable

from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store


def running(*, accounting: bool) -> Iterator[Cluster]:
    if reason := missing(accounting):
        pytest.skip(reason)
    cluster = Cluster(accounting=accounting)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def plain_cluster() -> Iterator[Cluster]:
    """A cluster without accounting."""
    yield from running(accounting=False)


@pytest.fixture(scope="session")
def accounted_cluster() -> Iterator[Cluster]:
    """A cluster with slurmdbd and MariaDB."""
    yield from running(accounting=True)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine."""
    for name in [n for n in os.environ if n.startswith(("MLFLOW_SLURM_", "SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_SLURM_FOLDER", str(tmp_path / "jobs"))
    monkeypatch.setenv("MLFLOW_SLURM_POLL_SECONDS", "2")
    monkeypatch.setenv("MLFLOW_SLURM_PATIENCE_SECONDS", "60")


CHECKPOINT = f"""\
echo attempt >> attempts
[ -e checkpoint ] && exit 0
exec {sys.executable} - <<'END'
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("checkpoint").write_text("saved")
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
time.sleep(120)
END
"""
SLOW = {
    "timed out": ("sleep 300", {"time": 1}),
    "checkpoint": (CHECKPOINT, {"time": 1, "signal": "USR1@55", "requeue": True}),
    "lost node": ("sleep 300", {"partition": "doomed"}),
}


@pytest.fixture(scope="session")
def slow(plain_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Jobs that take a minute or more to end: submitted with the first test, and looked at last.

    By name the submitted jobs, and under `store` the URI of their store.
    """
    folder = tmp_path_factory.mktemp("slow")
    made = sqlite_tracking_store(folder)
    jobs: dict[str, Any] = {"store": str(made.db_uri)}
    (folder / "MLproject").write_text("name: p\nentry_points:\n  main:\n    command: 'true'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(plain_cluster.conf))
        patch.setenv("MLFLOW_SLURM_POLL_SECONDS", "2")
        patch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", jobs["store"])
        for number, (name, (shell, config)) in enumerate(SLOW.items()):
            python = folder / f"python-{number}"
            python.write_text(f"#!/bin/bash\n{shell}\n")
            python.chmod(0o755)
            given = {"python": str(python), "folder": str(folder / "jobs"), "stream": False, **config}
            jobs[name] = mlflow.projects.run(str(folder), backend="slurm", backend_config=given, synchronous=False)
    until(lambda: jobs["lost node"].get_status() == "RUNNING", what="the job runs")
    plain_cluster.kill_node(plain_cluster.doomed)
    yield jobs
    dispose(made)


@pytest.fixture
def slurm(plain_cluster: Cluster, slow: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster without accounting, as the test's own."""
    monkeypatch.setenv("SLURM_CONF", str(plain_cluster.conf))
    return plain_cluster


@pytest.fixture
def accounted(accounted_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster with accounting, as the test's own."""
    monkeypatch.setenv("SLURM_CONF", str(accounted_cluster.conf))
    return accounted_cluster


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh SQLite tracking store, MLflow's current one."""
    made = sqlite_tracking_store(tmp_path)
    uri = str(made.db_uri)
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", uri)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.chdir(tmp_path)
    yield uri
    dispose(made)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose parameters may be left out."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n      a: {type: string, default: '1'}\n"
        "      b: {type: string, default: '2'}\n    command: \"true {a} {b}\"\n"
    )
    return folder


@pytest.fixture
def submit(store: str, project: Path, tmp_path: Path) -> Callable[..., Any]:
    """Submits the project with a shell command in place of `mlflow run`, which takes seconds to start.

    The job script is the built-in one: what it calls as Python is a script that runs the command.
    """
    made = iter(range(1000))

    def submit(shell: str = "true", *, parameters: dict[str, str] | None = None, **config: Any) -> Any:
        python = tmp_path / f"python-{next(made)}"
        python.write_text(f"#!/bin/bash\n{shell}\n")
        python.chmod(0o755)
        given = {"python": str(python), **config}
        return mlflow.projects.run(
            str(project), backend="slurm", backend_config=given, parameters=parameters, synchronous=False
        )

    return submit
