"""The laws of the house: what holds for every package of the repository.

Each law is a function from the repository's root to its violations, one sentence each. `test_laws.py`
asks them of this repository; `test_laws_bite.py` breaks a copy in each way and expects the sentence.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Law = Callable[[Path], Iterator[str]]
BASE, KIT = "mlflow-plugkit", "mlflow-plugkit-testing"
# Groups that MLflow loads at `import mlflow` or when its command line starts, whatever the user does.
EAGER_GROUPS = {
    f"mlflow.{name}"
    for name in (
        "tracking_store",
        "artifact_repository",
        "model_registry_store",
        "run_context_provider",
        "default_experiment_provider",
        "dataset_source",
        "dataset_constructor",
        "scorer_store",
        "labeling_store",
    )
}
SECRET_NAME = re.compile(r"passw|secret|token|api_?key|access_key|private_key|passphrase|credential")
NO_SECRET = re.compile(r"(_file|_url|_uri|_endpoint|_ttl|_name|_path|_seconds|_type|_header|_prefix)$")


def packages(root: Path) -> dict[Path, dict[str, Any]]:
    """Manifest by folder, for every distribution."""
    manifests = [m for home in ("shared", "packages") for m in sorted((root / home).glob("*/pyproject.toml"))]
    return {m.parent: tomllib.loads(m.read_text(encoding="utf-8")) for m in manifests}


def text_of(file: Path) -> str:
    """The file's text, "" where there is no file."""
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def sources(folder: Path) -> Iterator[Path]:
    """The Python files that a package ships; the template's are not code yet."""
    return (p for p in sorted((folder / "src").rglob("*.py")) if "template" not in p.parts)


def imports_of(tree: ast.AST, *, top_level_only: bool = False) -> Iterator[str]:
    """Full names of imported modules; without those under `if TYPE_CHECKING` where only top level is asked for."""
    nodes = tree.body if top_level_only and isinstance(tree, ast.Module) else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def manifests_agree(root: Path) -> Iterator[str]:
    """Every manifest has the same build system, licence, Python range and shape."""
    for folder, manifest in packages(root).items():
        project = manifest["project"]
        if manifest.get("build-system") != {"requires": ["hatchling>=1.26"], "build-backend": "hatchling.build"}:
            yield f"{folder.name}: the build system differs from the others'"
        for key, value in (
            ("license", "Apache-2.0"),
            ("license-files", ["LICENSE"]),
            ("requires-python", ">=3.10"),
            ("readme", "README.md"),
        ):
            if project.get(key) != value:
                yield f"{folder.name}: project.{key} is {project.get(key)!r}, elsewhere {value!r}"
        if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", project["version"]):
            yield f"{folder.name}: {project['version']} is no release version"


def names_say_where_they_are(root: Path) -> Iterator[str]:
    """Folder, distribution and import name are one name, and names and descriptions are unique."""
    seen: dict[str, str] = {}
    for folder, manifest in packages(root).items():
        project = manifest["project"]
        if project["name"] != folder.name:
            yield f"{folder.name}: the distribution is called {project['name']}"
        if not (folder / "src" / folder.name.replace("-", "_") / "__init__.py").is_file():
            yield f"{folder.name}: there is no src/{folder.name.replace('-', '_')}/__init__.py"
        for text in (project["name"], project["description"]):
            if text in seen:
                yield f"{folder.name}: {text!r} is used by {seen[text]} already"
            seen[text] = folder.name


def manifests_hold_metadata_only(root: Path) -> Iterator[str]:
    """A manifest has at most 60 lines, and no tool is configured in it but the wheel's content."""
    for folder, manifest in packages(root).items():
        lines = len((folder / "pyproject.toml").read_text(encoding="utf-8").splitlines())
        if lines > 60:
            yield f"{folder.name}: pyproject.toml has {lines} lines, more than 60"
        tools = manifest.get("tool", {})
        if tools and (set(tools) != {"hatch"} or set(tools["hatch"]) != {"build"}):
            yield f"{folder.name}: pyproject.toml configures a tool ({', '.join(tools)}); that belongs to the root"


def packages_are_complete(root: Path) -> Iterator[str]:
    """Every package has its README, changelog, fragments' folder, licence, type marker, tests, docs page and row."""
    readme = text_of(root / "README.md")
    for folder in packages(root):
        import_name = folder.name.replace("-", "_")
        for part in ("README.md", "CHANGELOG.md", "changes", "tests", f"src/{import_name}/py.typed"):
            if not (folder / part).exists():
                yield f"{folder.name}: {part} is missing"
        licence = folder / "LICENSE"
        if licence.is_symlink() or not licence.is_file() or licence.read_bytes() != (root / "LICENSE").read_bytes():
            yield f"{folder.name}: LICENSE is no equal copy of the root's"
        if f"({folder.parent.name}/{folder.name}" not in readme:
            yield f"{folder.name}: the table in README.md has no row for it"
        page = root / "docs" / "packages" / f"{folder.name}.md"
        if not page.is_file() or f"{folder.parent.name}/{folder.name}/README.md" not in page.read_text(
            encoding="utf-8"
        ):
            yield f"{folder.name}: docs/packages/{folder.name}.md does not include its README"
        text = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").exists() else ""
        if "not affiliated with MLflow" not in " ".join(text.split()):
            yield f"{folder.name}: README.md does not say that it is not affiliated with MLflow"


def mlflow_ranges_are_declared(root: Path) -> Iterator[str]:
    """Every package admits MLflow from a floor up to, and without, the next major version."""
    for folder, manifest in packages(root).items():
        requirements = [Requirement(line) for line in manifest["project"]["dependencies"]]
        mlflow = [r for r in requirements if r.name in ("mlflow", "mlflow-skinny")]
        if not mlflow:
            yield f"{folder.name}: no dependency on mlflow-skinny (or mlflow) says which versions it works with"
        for requirement in mlflow:
            floors = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
            caps = [Version(s.version) for s in requirement.specifier if s.operator == "<"]
            if len(floors) != 1 or len(caps) != 1 or caps[0].release[1:] not in ((), (0,)):
                yield f"{folder.name}: {requirement} is not of the form >=floor,<next-major"


def dependencies_run_one_way(root: Path) -> Iterator[str]:
    """Packages import themselves and shared code, shared code no package, and the base nothing of ours."""
    shared = {f.name.replace("-", "_") for f in packages(root) if f.parent.name == "shared"}
    ours = {f.name.replace("-", "_") for f in packages(root)}
    for folder in packages(root):
        own = folder.name.replace("-", "_")
        allowed = {own} if folder.name == BASE else {own, *shared} - ({"mlflow_plugkit_testing"} - {own})
        for file in sources(folder):
            used = {name.partition(".")[0] for name in imports_of(ast.parse(file.read_text(encoding="utf-8")))}
            for name in sorted((used & ours) - allowed):
                yield f"{file.relative_to(root)}: imports {name}, which {folder.name} must not"


def entry_points_import_nothing(root: Path) -> Iterator[str]:
    """The modules that MLflow loads at `import mlflow` import the standard library and one another only."""
    for folder, manifest in packages(root).items():
        groups = manifest["project"].get("entry-points", {})
        modules = {v.partition(":")[0] for g, entries in groups.items() if g in EAGER_GROUPS for v in entries.values()}
        for module in sorted(modules):
            parents = [".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)]
            light = {*modules, *parents}
            for name in [*(f"{parent}.__init__" for parent in parents), module]:
                file = folder / "src" / (name.replace(".", "/") + ".py")
                if not file.is_file():
                    yield f"{folder.name}: the entry point's module {name} does not exist"
                    continue
                used = imports_of(ast.parse(file.read_text(encoding="utf-8")), top_level_only=True)
                heavy = sorted(
                    {u for u in used if u not in light and u.partition(".")[0] not in sys.stdlib_module_names}
                )
                if heavy:
                    yield f"{file.relative_to(root)}: is loaded at `import mlflow` and imports {', '.join(heavy)}"


def secrets_are_secret(root: Path) -> Iterator[str]:
    """An option with a secret's name has the type SecretStr, which no repr and no dataclass shows."""
    for folder in packages(root):
        for file in sources(folder):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                is_option = isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)
                if not is_option or getattr(node.value.func, "id", "") != "option":
                    continue
                name = node.target.id.lower()
                if (
                    SECRET_NAME.search(name)
                    and not NO_SECRET.search(name)
                    and "SecretStr" not in ast.unparse(node.annotation)
                ):
                    yield f"{file.relative_to(root)}: option {name!r} holds a secret, but is no SecretStr"


def versions_are_asked_in_one_file(root: Path) -> Iterator[str]:
    """Only mlflow_plugkit/compat.py asks which MLflow this is."""
    pattern = re.compile(r"mlflow\.__version__|mlflow\.version\.VERSION|version\(\s*[\"']mlflow(-skinny)?[\"']")
    for folder in packages(root):
        for file in sources(folder):
            if file.name == "compat.py" and folder.name == BASE:
                continue
            if pattern.search(file.read_text(encoding="utf-8")):
                yield f"{file.relative_to(root)}: asks for MLflow's version; compat.py is the place"


def files_are_small(root: Path) -> Iterator[str]:
    """No shipped file has more than 450 lines, and the noxfile at most 250."""
    limits = [(file, 450) for folder in packages(root) for file in sources(folder)] + [(root / "noxfile.py", 250)]
    for file, limit in limits:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > limit:
            yield f"{file.relative_to(root)}: {lines} lines, more than {limit}"


def paths_of_a_machine_are_not_named(root: Path) -> Iterator[str]:
    """No file names a folder of somebody's machine."""
    pattern = re.compile(r"(?<![\w./~}-])/(?:work|root|home/\w+|Users/\w+|tmp/\w+)/[\w.-]+")
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root)
        if file.suffix not in {".py", ".md", ".toml", ".yml", ".yaml", ".jinja", ".sh", ""} or not file.is_file():
            continue
        if any((part.startswith(".") and part not in (".ci", ".github")) or part in SKIPPED for part in inside.parts):
            continue
        found = pattern.search(file.read_text(encoding="utf-8", errors="replace"))
        if found and inside.name != "laws.py":
            yield f"{inside}: names a path of a machine: {found[0]}"


SKIPPED = {"_build", "dist", "wheels", "__pycache__", "build", "node_modules"}

LAWS: tuple[Law, ...] = (
    manifests_agree,
    names_say_where_they_are,
    manifests_hold_metadata_only,
    packages_are_complete,
    mlflow_ranges_are_declared,
    dependencies_run_one_way,
    entry_points_import_nothing,
    secrets_are_secret,
    versions_are_asked_in_one_file,
    files_are_small,
    paths_of_a_machine_are_not_named,
)
