"""Render a plugin of each type and hold it to its own promises: lint, types and tests, untouched.

python tools/check_template.py                                  all types, oldest and newest MLflow
python tools/check_template.py --type app --type deployments
python tools/check_template.py --python .venv/bin/python        in environments that are there already
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.workspace import mlflow_constraints, mlflow_versions, package_named  # noqa: E402 # needs the line above

TYPES = sorted(path.name for path in (ROOT / "template" / "types").iterdir())
NEW = "from mlflow_plugkit.cli.new import new; new()"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
STEP_SECONDS = 1200


@dataclass(frozen=True)
class Row:
    """One line of the table of results."""

    plugin_type: str
    step: str
    environment: str
    passed: bool
    seconds: float
    said: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    types = TYPES if options.type in (None, ["all"]) else options.type
    with tempfile.TemporaryDirectory(prefix="plugkit-template-") as folder:
        scratch = Path(folder)
        tools = options.tools or make_tools(scratch)
        pythons = options.python or make_environments(scratch)
        rows = [row for plugin_type in types for row in check(plugin_type, scratch, tools, pythons)]
    return report(rows)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", action="append", choices=[*TYPES, "all"], help="default: all")
    parser.add_argument(
        "--python",
        action="extend",
        nargs="+",
        type=Path,
        help="interpreters with MLflow, mlflow-plugkit, mlflow-plugkit-testing and pytest; made where not given",
    )
    parser.add_argument(
        "--tools", type=Path, help="a folder of commands with python (that has mlflow-plugkit[cli]), ruff and mypy"
    )
    return parser.parse_args(arguments)


def make_tools(scratch: Path) -> Path:
    """An environment with the command line, ruff and mypy."""
    uv("venv", scratch / "tools")
    install(
        scratch / "tools", f"{ROOT / 'shared' / 'mlflow-plugkit'}[cli]", "ruff>=0.14", "mypy>=1.18", "types-requests"
    )
    return scratch / "tools" / "bin"


def make_environments(scratch: Path) -> list[Path]:
    """Environments with the base and the kit as wheels, and the oldest and the newest MLflow of the matrix."""
    versions = mlflow_versions(package_named("mlflow-plugkit-testing"))
    shared = [ROOT / "shared" / name for name in ("mlflow-plugkit", "mlflow-plugkit-testing")]
    for version in (versions[0], versions[-1]):
        environment = scratch / f"mlflow-{version}"
        uv("venv", environment)
        install(environment, *shared, f"mlflow=={version}", *mlflow_constraints(version), "uvicorn", "gunicorn")
    return [scratch / f"mlflow-{version}" / "bin" / "python" for version in (versions[0], versions[-1])]


def check(plugin_type: str, scratch: Path, tools: Path, pythons: Sequence[Path]) -> list[Row]:
    """Render one type in both shapes; lint both, and hold the repository to its types and tests."""
    name = f"mlflow-demo-{plugin_type.replace('_', '-')}"
    home = Path(tempfile.mkdtemp(dir=scratch))
    workspace = home / "workspace"
    (workspace / "packages").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", workspace)
    new: list[str | Path] = [tools / "python", "-c", NEW, name, plugin_type]
    command = [*new, "--register-as", "demo", "--destination"]
    rows = [
        run(plugin_type, "render", "repository", [*command, home], home),
        run(plugin_type, "render", "package", [*command, workspace, "--in-repository"], home),
    ]
    if not all(row.passed for row in rows):
        return rows
    repository = home / name
    for shape, folder in (("repository", repository), ("package", workspace)):
        for what in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
            rows.append(run(plugin_type, f"ruff {what[0]}", shape, [tools / "ruff", *what, "."], folder))
    rows.append(run(plugin_type, "build", "wheel", [uv_command(), "build", "-q", "--wheel"], repository))
    if rows[-1].passed:
        for python in pythons:
            rows += in_environment(plugin_type, name, repository, tools, python.absolute(), scratch)
    return rows


def in_environment(plugin_type: str, name: str, folder: Path, tools: Path, python: Path, scratch: Path) -> list[Row]:
    """Install the wheel, check its types and run its tests, then take it out again."""
    mlflow = text_of([python, "-c", "from importlib.metadata import version as v; print('MLflow', v('mlflow'))"])
    (wheel,) = (folder / "dist").glob("*.whl")
    target: list[str | Path] = ["--python", python]
    rows = [run(plugin_type, "install", mlflow, [uv_command(), "pip", "install", "-q", *target, wheel], folder)]
    try:
        cache = scratch / f"mypy {mlflow}"  # MLflow's own modules are read once for all types
        mypy: list[str | Path] = [tools / "mypy", "--python-executable", python, "--cache-dir", cache, "src"]
        rows.append(run(plugin_type, "mypy", mlflow, mypy, folder))
        pytest: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        rows.append(run(plugin_type, "pytest", mlflow, pytest, folder))
    finally:
        uv("pip", "uninstall", "-q", *target, name)
    return rows


def run(plugin_type: str, step: str, environment: str, command: Sequence[str | Path], folder: Path) -> Row:
    """Run one step to its end; what it printed is shown where it failed."""
    start = time.monotonic()
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW_")) and k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=folder, env=own | QUIET, timeout=STEP_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        passed, output = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired as exc:
        passed, output = False, f"{exc.stdout or ''!s}\nno end after {STEP_SECONDS} seconds"
    lines = output.strip().splitlines()
    row = Row(plugin_type, step, environment, passed, time.monotonic() - start, lines[-1] if lines else "")
    print(formatted(row), flush=True)
    if not passed:
        print(output[-12000:], flush=True)
    return row


def report(rows: Sequence[Row]) -> int:
    """Print what failed, or that nothing did; the exit status."""
    failed = [row for row in rows if not row.passed]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} steps passed in {sum(row.seconds for row in rows):.0f} seconds")
    for row in failed:
        print(formatted(row))
    return 1 if failed or not rows else 0


def formatted(row: Row) -> str:
    result = "ok" if row.passed else "FAILED"
    said = row.said[:60] if row.step == "pytest" else ""
    return f"{row.plugin_type:22}{row.step:14}{row.environment:16}{result:8}{row.seconds:7.1f} s  {said}".rstrip()


def install(environment: Path, *what: str | Path) -> None:
    uv("pip", "install", "-q", "--python", environment / "bin" / "python", *what)


def uv(*arguments: str | Path) -> None:
    subprocess.run([uv_command(), *map(str, arguments)], check=True, timeout=STEP_SECONDS)


def uv_command() -> str:
    found = shutil.which("uv")
    if found is None:
        raise SystemExit("This needs uv: python -m pip install uv")
    return found


def text_of(command: Sequence[str | Path]) -> str:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
