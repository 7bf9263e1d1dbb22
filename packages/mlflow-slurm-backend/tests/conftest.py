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

from slurm_cluster import Cluster, missing  # the line above makes the next importable

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


@pytest.fixture(scope="session")
def timed_out(plain_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A job with a time limit of one minute, and the URI of its store: it is submitted with the first test."""
    folder = tmp_path_factory.mktemp("timed-out")
    made = sqlite_tracking_store(folder)
    (folder / "MLproject").write_text("name: p\nentry_points:\n  main:\n    command: 'true'\n")
    (folder / "python").write_text("#!/bin/bash\nsleep 300\n")
    (folder / "python").chmod(0o755)
    config = {"python": str(folder / "python"), "time": 1, "folder": str(folder / "jobs"), "stream": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(plain_cluster.conf))
        patch.setenv("MLFLOW_SLURM_POLL_SECONDS", "2")
        patch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", str(made.db_uri))
        submitted = mlflow.projects.run(str(folder), backend="slurm", backend_config=config, synchronous=False)
    yield submitted, str(made.db_uri)
    dispose(made)


@pytest.fixture
def slurm(plain_cluster: Cluster, timed_out: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> Cluster:
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
