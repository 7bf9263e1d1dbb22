"""Each law is shown to bite: a copy of the repository is broken, and the law must name the break."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from laws import LAWS, Law
from laws import packages as all_packages

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "packages/mlflow-reference-plugin"
CODE = f"{PLUGIN}/src/mlflow_reference_plugin"
Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("repository") / "copy"
    ignored = shutil.ignore_patterns(
        ".git", ".nox", "_build", "dist", "wheels", "__pycache__", ".*_cache", "*.egg-info"
    )
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    return copy


@pytest.fixture
def copy(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def edit(path: str, old: str, new: str) -> Break:
    """Replace text in a file; that it was there is part of the test."""

    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text, f"{path} does not hold {old!r}"
        (root / path).write_text(text.replace(old, new))

    return change


def append(path: str, text: str) -> Break:
    return lambda root: (root / path).write_text((root / path).read_text() + text)


def remove(path: str) -> Break:
    return lambda root: (root / path).unlink()


MANIFEST = f"{PLUGIN}/pyproject.toml"
BREAKS: list[tuple[str, Break, str]] = [
    ("manifests_agree", edit(MANIFEST, ">=3.10", ">=3.12"), r"requires-python is '>=3.12'"),
    ("manifests_agree", edit(MANIFEST, "hatchling.build", "setuptools.build_meta"), "build system differs"),
    ("manifests_agree", edit(MANIFEST, 'version = "0.1.0"', 'version = "0.1.0.dev1"'), "no release version"),
    ("names_say_where_they_are", edit(MANIFEST, '"mlflow-reference-plugin"', '"mlflow-reference"'), "is called"),
    ("names_say_where_they_are", remove(f"{CODE}/__init__.py"), r"no src/mlflow_reference_plugin/__init__\.py"),
    (
        "names_say_where_they_are",
        lambda root: shutil.copytree(root / PLUGIN, root / "packages/mlflow-second-plugin"),
        "is used by mlflow-reference-plugin already",
    ),
    ("manifests_hold_metadata_only", append(MANIFEST, "\n[tool.ruff]\nline-length = 80\n"), r"configures a tool \("),
    ("manifests_hold_metadata_only", append(MANIFEST, "# more\n" * 60), "more than 60"),
    ("packages_are_complete", remove(f"{CODE}/py.typed"), r"py\.typed is missing"),
    ("packages_are_complete", append(f"{PLUGIN}/LICENSE", "\nbut not on Sundays\n"), "no equal copy"),
    ("packages_are_complete", edit("README.md", PLUGIN, "packages/other"), "has no row"),
    ("packages_are_complete", remove("docs/packages/mlflow-reference-plugin.md"), "does not include its README"),
    ("packages_are_complete", edit(f"{PLUGIN}/README.md", "affiliated", "connected"), "not affiliated"),
    ("mlflow_ranges_are_declared", edit(MANIFEST, "mlflow>=2.22,<4", "mlflow>=2.22"), "not of the form"),
    ("mlflow_ranges_are_declared", edit(MANIFEST, ', "mlflow>=2.22,<4"', ""), "no dependency on mlflow-skinny"),
    (
        "dependencies_run_one_way",
        append(f"{CODE}/app.py", "\n\ndef late():\n    import mlflow_plugkit_testing.suite\n"),
        "imports mlflow_plugkit_testing, which",
    ),
    (
        "dependencies_run_one_way",
        append("shared/mlflow-plugkit/src/mlflow_plugkit/logs.py", "\nimport mlflow_reference_plugin\n"),
        "imports mlflow_reference_plugin, which mlflow-plugkit must not",
    ),
    ("entry_points_import_nothing", append(f"{CODE}/plugin.py", "\nimport sqlalchemy\n"), "and imports sqlalchemy"),
    ("entry_points_import_nothing", append(f"{CODE}/__init__.py", "\nimport pandas\n"), "and imports pandas"),
    ("entry_points_import_nothing", edit(MANIFEST, "plugin:tracking_store", "gone:tracking_store"), "does not exist"),
    ("secrets_are_secret", edit(f"{CODE}/settings.py", "token: SecretStr | None", "token: str | None"), "no SecretStr"),
    (
        "versions_are_asked_in_one_file",
        append(f"{CODE}/auth.py", "\nimport mlflow\n\nOLD = mlflow.__version__ < '3'\n"),
        "asks for MLflow's version",
    ),
    ("files_are_small", append(f"{CODE}/app.py", "# line\n" * 450), "more than 450"),
    ("files_are_small", append("noxfile.py", "# line\n" * 250), "more than 250"),
    (
        "paths_of_a_machine_are_not_named",
        append("README.md", "\nLook into /home/" + "ann/mlflow.\n"),
        "names a path of a machine",
    ),
]


@pytest.mark.parametrize(("name", "breaks", "sentence"), BREAKS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BREAKS)])
def test_a_broken_copy_is_noticed(name: str, breaks: Break, sentence: str, copy: Path) -> None:
    law: Law = next(law for law in LAWS if law.__name__ == name)
    before = list(law(copy))
    breaks(copy)
    new = [violation for violation in law(copy) if violation not in before]
    assert any(re.search(sentence, violation) for violation in new), new


def test_every_law_is_broken_once() -> None:
    assert {name for name, _, _ in BREAKS} == {law.__name__ for law in LAWS}


def test_the_laws_see_the_packages() -> None:
    assert {"mlflow-plugkit", "mlflow-plugkit-testing", "mlflow-reference-plugin"} <= {
        f.name for f in all_packages(ROOT)
    }
