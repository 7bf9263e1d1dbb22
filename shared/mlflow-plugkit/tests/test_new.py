"""`mlflow-plugkit new`: names, places, and that nothing is left half-written."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlflow_plugkit.cli import new as module
from mlflow_plugkit.cli.new import PLUGIN_TYPES, ROWS_BEGIN, ROWS_END, add_row, checked_answers, new, repository_root

WORKSPACE = '[tool.hatch.envs.default]\nworkspace.members = ["packages/*", "shared/*"]\n'


def run(*arguments: str, **kwargs: Any) -> Result:
    return CliRunner().invoke(new, list(arguments), **kwargs)


def error_of(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.replace("│", "").split())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The least that the command takes for the Plugkit repository."""
    root = tmp_path / "repository"
    (root / "packages").mkdir(parents=True)
    (root / "docs").mkdir()
    (root / "pyproject.toml").write_text(WORKSPACE)
    rows = "| plugin | plugs into | MLflow | status |\n|---|---|---|---|\n| [mlflow-z](packages/mlflow-z/) | | | |\n"
    (root / "README.md").write_text(f"# Title\n\n{ROWS_BEGIN}\n{rows}{ROWS_END}\n\nEnd.\n")
    return root


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Mlflow_Demo", "Did you mean 'mlflow-demo'?"),
        ("mlflow--demo", "Did you mean 'mlflow-demo'?"),
        ("-mlflow", "no normalised distribution name"),
        ("mlflow/../demo", "no normalised distribution name"),
        ("mlflow démo", "no normalised distribution name"),
        ("3d-models", "gives no Python module name"),
        ("mlflow-skinny", "is taken"),
        ("mlflow-plugkit-testing", "is taken"),
        ("json", "is taken"),
        ("class", "gives no Python module name"),
        ("mlflow-" + "x" * 60, "longer than"),
    ],
)
def test_a_name_that_cannot_work_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    assert reason in error_of("--destination", str(tmp_path), "--", name, "app")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("plugin_type", "register_as", "reason"),
    [
        ("artifact_repository", "s3", "MLflow's own"),
        ("tracking_store", "http", "MLflow's own"),
        ("tracking_store", "sqlite-folder", "for a database"),
        ("artifact_repository", "mssql-artifacts", "for a database"),
        ("deployments", "sagemaker", "MLflow's own"),
        ("model_evaluator", "default", "MLflow's own"),
        ("project_backend", "local", "MLflow's own"),
        ("app", "basic-auth", "MLflow's own"),
        ("dataset_source", "pandas", "MLflow's own"),
        ("dataset_source", "import", "cannot be registered"),
        ("app", "3d", "cannot be registered"),
        ("app", "Demo", "cannot be registered"),
    ],
)
def test_a_scheme_or_name_of_mlflow_is_refused_with_the_remedy(
    plugin_type: str, register_as: str, reason: str, tmp_path: Path
) -> None:
    said = error_of("mlflow-demo", plugin_type, "--register-as", register_as, "--destination", str(tmp_path))
    assert reason in said
    assert "--register-as" in said


@pytest.mark.parametrize(
    ("name", "registered"),
    [
        ("mlflow-demo-artifacts", "demo"),
        ("mlflow-big-blue-registry", "big-blue"),
        ("mlflow-demo-artifact-repository", "demo"),
        ("acme-store", "acme"),
        ("acme", "acme"),
    ],
)
def test_the_plugin_is_registered_under_the_name_without_mlflow_and_role(name: str, registered: str) -> None:
    answers = checked_answers(name, "run_context", in_repository=False)
    assert answers["register_as"] == registered


def test_an_unknown_type_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    said = error_of("mlflow-demo", "artefact", "--destination", str(tmp_path))
    assert all(plugin_type in said for plugin_type in PLUGIN_TYPES)


def test_a_missing_argument_is_an_error_where_nobody_can_be_asked() -> None:
    assert "Missing argument NAME" in error_of()
    assert "Missing argument TYPE" in error_of("mlflow-demo")


def test_a_missing_argument_is_asked_for_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["mlflow-demo", "app"])
    monkeypatch.setattr(module.click, "prompt", lambda *_, **__: next(answers))

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(module.sys, "stdin", Terminal())
    assert new.callback is not None
    new.callback(None, None, tmp_path, False, None, None)
    assert (tmp_path / "mlflow-demo" / "pyproject.toml").is_file()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow-demo").mkdir()
    (tmp_path / "mlflow-demo" / "precious.txt").write_text("data")
    assert "is there already" in error_of("mlflow-demo", "app", "--destination", str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["mlflow-demo", "precious.txt"]


def test_a_missing_destination_is_an_error(tmp_path: Path) -> None:
    assert "does not exist" in error_of("mlflow-demo", "app", "--destination", str(tmp_path / "missing"))


def test_a_failure_while_rendering_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(answers: dict[str, Any], folder: Path) -> None:
        folder.mkdir()
        (folder / "half.txt").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "render", fails)
    assert isinstance(run("mlflow-demo", "app", "--destination", str(tmp_path)).exception, OSError)
    assert list(tmp_path.iterdir()) == []


def test_without_copier_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_copier(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "copier":
            raise ModuleNotFoundError("No module named 'copier'", name="copier")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_copier)
    result = run("mlflow-demo", "app", "--destination", str(tmp_path))
    assert result.exit_code == 1
    assert "pip install 'mlflow-plugkit[cli]'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_command_imports_no_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from mlflow_plugkit.cli.new import new;"
        f"new(['mlflow-demo', 'app', '--destination', {str(tmp_path)!r}], standalone_mode=False);"
        "print(sorted(m for m in sys.modules if m == 'mlflow' or m.startswith('mlflow.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert len(lines) == 5, "where it is, three next steps, and the line above"


def test_inside_the_repository_a_package_gets_its_folder_row_and_page(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "docs")
    result = run("mlflow-demo-artifacts", "artifact_repository")
    assert result.exit_code == 0, result.output
    package = repository / "packages" / "mlflow-demo-artifacts"
    assert (package / "changes").is_dir()
    assert not (package / "noxfile.py").exists()
    readme = (repository / "README.md").read_text()
    assert readme.index("(packages/mlflow-demo-artifacts/)") < readme.index("(packages/mlflow-z/)")
    assert readme.endswith(f"{ROWS_END}\n\nEnd.\n")
    page = (repository / "docs" / "packages" / "mlflow-demo-artifacts.md").read_text()
    assert "{include} ../../packages/mlflow-demo-artifacts/README.md" in page
    assert "Note:" not in result.output


def test_what_the_repository_does_not_have_yet_is_said(repository: Path) -> None:
    (repository / "README.md").write_text("# no table")
    (repository / "docs").rmdir()
    result = run("mlflow-demo-app", "app", "--destination", str(repository), "--in-repository")
    assert result.exit_code == 0, result.output
    assert "no markers" in result.output
    assert "no docs folder" in result.output


def test_a_package_of_the_repository_is_called_mlflow_something(repository: Path) -> None:
    said = error_of("demo-app", "app", "--destination", str(repository), "--in-repository")
    assert "try 'mlflow-demo-app'" in said


def test_a_destination_inside_the_repository_gets_a_repository_of_its_own(repository: Path) -> None:
    result = run("mlflow-demo-app", "app", "--destination", str(repository))
    assert result.exit_code == 0, result.output
    assert (repository / "mlflow-demo-app" / "noxfile.py").is_file()
    assert list((repository / "packages").iterdir()) == []


def test_outside_the_repository_the_option_is_an_error(tmp_path: Path) -> None:
    said = error_of("mlflow-demo", "app", "--destination", str(tmp_path), "--in-repository")
    assert "no Plugkit repository" in said
    assert repository_root(tmp_path) is None


def test_the_first_row_of_an_empty_table_stands_between_the_markers() -> None:
    answers = checked_answers("mlflow-demo-app", "app", in_repository=True)
    text = add_row(f"{ROWS_BEGIN}\n{ROWS_END}\n", answers)
    row = "| [mlflow-demo-app](packages/mlflow-demo-app/) | `mlflow.app` | 2.22 to 3.x | alpha |"
    assert text.splitlines() == [ROWS_BEGIN, row, ROWS_END]


def test_a_row_names_every_entry_point_group() -> None:
    answers = checked_answers("mlflow-demo-dataset", "dataset_source", in_repository=True)
    text = add_row(f"{ROWS_BEGIN}\n{ROWS_END}\n", answers)
    assert "| `mlflow.dataset_source`, `mlflow.dataset_constructor` |" in text


def test_an_author_that_would_break_the_manifest_is_refused(tmp_path: Path) -> None:
    assert "quote" in error_of("mlflow-demo", "app", "--author", 'Ann "A" B', "--destination", str(tmp_path))
