"""`list` shows every plugin, its entry points, its MLflow range and its cost."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from seeds import REPOSITORY, Seeds, environment, run, run_json

SLOW = "import time\nend = time.perf_counter() + 0.2\nwhile time.perf_counter() < end:\n    pass\n"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "seeds"
    folder.mkdir()
    seeds = Seeds(folder)
    seeds.add(
        "seed-good",
        {
            "artifact_repository": {"seedgood": "seed_good:Repository"},
            "project_backend": {"seedgood": "seed_slow:Backend"},
        },
        {"seed_good.py": REPOSITORY, "seed_slow.py": SLOW + "class Backend: ...\n"},
        version="1.2.3",
    )
    seeds.add("seed-old", {"model_evaluator": {"old": "seed_gone:E"}}, requires=["mlflow<2", "mlflow>=1"])
    seeds.add("seed-bare", {"mlflow_is_not_here": {}, "app": {"bare": "seed_good:Repository"}}, requires=[])
    return environment(tmp_path, PYTHONPATH=str(folder))


def test_json_holds_every_plugin_with_its_range_and_cost(env: dict[str, str]) -> None:
    listing, done = run_json(["list"], env)
    assert done.returncode == 0
    assert listing["mlflow"] == version("mlflow-skinny")
    plugins = {p["name"]: p for p in listing["plugins"]}
    assert not {"mlflow", "mlflow-skinny", "mlflow-plugkit"} & plugins.keys()

    good = plugins["seed-good"]
    assert (good["version"], good["mlflow_range"], good["mlflow_inside"]) == ("1.2.3", "<4,>=2.22", True)
    repository, backend = good["entry_points"]
    assert (repository["group"], repository["name"], repository["object"], repository["eager"]) == (
        "mlflow.artifact_repository",
        "seedgood",
        "seed_good:Repository",
        True,
    )
    assert backend["eager"] is False
    assert backend["import_ms"] >= 200 > repository["import_ms"] >= 0
    assert good["import_ms"] == pytest.approx(repository["import_ms"] + backend["import_ms"], abs=0.1)

    assert good["eager_ms"] == repository["import_ms"]

    old = plugins["seed-old"]
    assert (old["mlflow_range"], old["mlflow_inside"]) == ("<2,>=1", False)
    assert "No module named 'seed_gone'" in old["entry_points"][0]["error"]
    assert (plugins["seed-bare"]["mlflow_range"], plugins["seed-bare"]["mlflow_inside"]) == (None, None)


def test_the_table_names_every_plugin_and_what_failed(env: dict[str, str]) -> None:
    done = run(["list"], env)
    assert done.returncode == 0, done.stderr
    for text in (
        "seed-good 1.2.3",
        "artifact_repository *",
        "seed_gone:E",
        "failed",
        "none declared",
        "cost to `import mlflow`",
    ):
        assert text in done.stdout
    assert "does not admit this MLflow" in " ".join(done.stdout.split())
    assert "mlflow-plugkit doctor" in done.stdout


def test_help_lists_all_three_commands(tmp_path: Path) -> None:
    done = run(["--help"], environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {command} " in done.stdout for command in ("list", "doctor", "new"))
