"""What the stores add to MLflow's own: the folder, opening on first use, and many who open at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_reference_plugin.plugin import model_registry_store, tracking_store

OPEN = """
import sys
from mlflow_reference_plugin.plugin import tracking_store
sys.stdin.readline()
print([e.experiment_id for e in tracking_store(sys.argv[1]).search_experiments()])
"""


def test_nothing_is_made_until_the_first_operation(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    stores = (
        tracking_store(f"file-plugin:{folder}?create=true"),
        model_registry_store(f"file-plugin:{folder}?create=true"),
    )
    assert not folder.exists()
    assert stores[1].search_registered_models() == []
    assert [e.name for e in stores[0].search_experiments()] == ["Default"]
    assert os.listdir(folder) == ["mlflow.db"]


def test_the_store_is_an_mlflow_sql_store(tmp_path: Path) -> None:
    assert isinstance(tracking_store(f"file-plugin:{tmp_path}"), SqlAlchemyStore)


def test_processes_that_open_a_new_folder_at_once_all_find_one_store(tmp_path: Path) -> None:
    uri = f"file-plugin:{tmp_path}/store?create=true"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", OPEN, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in answers] == ["['0']"] * 3, answers
    assert os.listdir(tmp_path / "store") == ["mlflow.db"]


def test_threads_that_open_a_new_folder_at_once_all_find_one_store(tmp_path: Path) -> None:
    uri = f"file-plugin:{tmp_path}/store?create=true"
    barrier = threading.Barrier(6)

    def first_use(number: int) -> list[str]:
        store = tracking_store(uri) if number % 2 else model_registry_store(uri)
        barrier.wait(60)
        return [e.name for e in store.search_experiments()] if number % 2 else store.search_registered_models()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(first_use, range(6))) == [[], ["Default"]] * 3
    assert os.listdir(tmp_path / "store") == ["mlflow.db"]


@pytest.mark.parametrize("name", ["plain", "with space", "hash#and%percent", "umläut-é"])
def test_folders_may_have_any_name(name: str, tmp_path: Path) -> None:
    from urllib.parse import quote

    folder = tmp_path / name
    folder.mkdir()
    mlflow.set_tracking_uri(f"file-plugin:{quote(str(folder))}")
    try:
        with mlflow.start_run(experiment_id="0") as run:
            mlflow.log_text("text", "a.txt")
        assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/a.txt") == "text"
    finally:
        mlflow.set_tracking_uri(None)
    assert (folder / "artifacts" / "0" / run.info.run_id / "artifacts" / "a.txt").read_text() == "text"


def test_the_default_artifact_root_is_that_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    store = tracking_store(f"file-plugin:{tmp_path}")
    assert store.get_experiment("0").artifact_location.startswith("mlflow-artifacts:/")
