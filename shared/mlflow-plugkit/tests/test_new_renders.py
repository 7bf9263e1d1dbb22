"""What the template renders, for every type and in both shapes, looked at without running it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlflow_plugkit.cli.new import PLUGIN_TYPES, TEMPLATE, checked_answers, render

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = {
    "short": ("mlflow-x", "x"),
    "long": ("mlflow-long-winded-enterprise-experiment", "long-winded-name"),
}
ROOT = Path(__file__).resolve().parents[3]
SHAPES = {"repository": False, "package": True}
# GitHub's own expressions look like Jinja's.
LEFTOVER = re.compile(r"(?<!\$)\{\{|\{%|\{#|%\}")


@pytest.fixture(scope="module", params=[(t, s, n) for t in PLUGIN_TYPES for s in SHAPES for n in NAMES], ids="-".join)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    plugin_type, shape, length = request.param
    name, register_as = NAMES[length]
    answers = checked_answers(name, plugin_type, register_as, in_repository=SHAPES[shape])
    folder = tmp_path_factory.mktemp("rendered") / name
    render(answers, folder)
    return folder, answers


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_file_is_rendered_and_python(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = rendered
    for path in files(folder):
        text = path.read_text(encoding="utf-8")
        assert not LEFTOVER.search(text), f"{path} holds unrendered template code"
        assert path.suffix != ".jinja"
        if path.suffix == ".py":
            ast.parse(text)
        if path.suffix in (".py", ".md", ".toml"):
            assert text.endswith("\n"), f"{path} has no newline at its end"
            assert not text.endswith("\n\n"), f"{path} has blank lines at its end"


def test_the_package_has_the_shape_of_the_house(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = rendered
    source = f"src/{answers['import_name']}"
    wanted = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", f"{source}/__init__.py", f"{source}/plugin.py"}
    wanted |= {f"{source}/settings.py", f"{source}/{answers['work']}.py", f"{source}/py.typed"}
    wanted |= {"tests/test_settings.py", f"tests/test_{answers['work']}.py", "tests/test_conformance.py"}
    if answers["in_repository"]:
        wanted |= {"changes/.gitkeep"}
    else:
        wanted |= {
            "noxfile.py",
            ".gitignore",
            "CONTRIBUTING.md",
            ".github/workflows/ci.yml",
            ".github/workflows/release.yml",
        }
    found = {path.relative_to(folder).as_posix() for path in files(folder)}
    assert wanted <= found
    assert found - wanted <= {f"{source}/errors.py", "tests/test_errors.py"}


def test_the_manifest_registers_what_plugin_py_has(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = rendered
    text = (folder / "pyproject.toml").read_text()
    manifest = tomllib.loads(text)
    project = manifest["project"]
    assert (project["name"], project["license"]) == (answers["name"], "Apache-2.0")
    assert "mlflow-skinny>=2.22,<4" in project["dependencies"]
    assert answers["register_as"] in project["entry-points"][answers["groups"][0]]
    assert list(project["entry-points"]) == list(answers["groups"])
    plugin = (folder / "src" / answers["import_name"] / "plugin.py").read_text()
    for entries in project["entry-points"].values():
        for value in entries.values():
            module, _, attribute = value.partition(":")
            assert module == f"{answers['import_name']}.plugin"
            assert attribute in plugin
    if answers["in_repository"]:
        assert set(manifest["tool"]) == {"hatch"}, "tools are configured in the root"
        assert len(text.splitlines()) <= 45


def test_the_entry_points_module_imports_the_standard_library_only(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = rendered
    for name in ("__init__.py", "plugin.py"):
        tree = ast.parse((folder / "src" / answers["import_name"] / name).read_text())
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(n.partition(".")[0] in sys.stdlib_module_names for n in names), f"{name} imports {names}"


def test_the_readme_starts_with_its_use_and_holds_the_options(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = rendered
    readme = (folder / "README.md").read_text()
    assert (
        readme.index("## Use") < readme.index("## Configure") < readme.index("## Limits") < readme.index("## Security")
    )
    assert "<!-- options:begin -->" in readme
    assert "not affiliated with MLflow" in readme
    settings = (folder / "src" / answers["import_name"] / "settings.py").read_text()
    for variable in re.findall(r'env="(\w+)"', settings):
        assert f"`{variable}`" in readme


def test_the_workflows_pin_each_action_by_commit(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = rendered
    used = [line for path in folder.glob(".github/workflows/*") for line in re.findall(r"uses: (.*)", path.read_text())]
    assert bool(used) is not answers["in_repository"]
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", line) for line in used), used


def test_ruff_has_nothing_to_say_whatever_the_length_of_the_name(rendered: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = rendered
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed here; the session 'template' of the repository runs it")
    # A package of the repository is held to the repository's own configuration.
    config = ["--config", str(ROOT / "pyproject.toml")] if answers["in_repository"] else []
    for what in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        command = [ruff, *what, *config, "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_layers_of_the_template_write_the_same_file() -> None:
    for plugin_type in PLUGIN_TYPES:
        seen: set[str] = set()
        for layer in ("common", "repository", "package", f"types/{plugin_type}"):
            root = TEMPLATE / layer
            own = {p.relative_to(root).as_posix().removesuffix(".jinja") for p in root.rglob("*") if p.is_file()}
            assert not seen & own, f"{layer} writes {seen & own} again"
            seen |= own


def test_the_template_runs_no_code_of_its_own() -> None:
    text = (TEMPLATE / "copier.yml").read_text()
    assert not re.search(r"^_(tasks|migrations|jinja_extensions|external_data)", text, re.MULTILINE)
