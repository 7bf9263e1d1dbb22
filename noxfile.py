"""Build, test and publish each package on its own.

nox -s quickstart                      the main job, on real data, in a fresh environment
nox -s tests                           each package on the oldest and the newest MLflow that it admits
nox -t mlflow-reference-plugin         one package on every MLflow of the matrix
nox -s "tests(mlflow-plugkit, mlflow 3.6.0)"   one cell of it
nox -s minimums                        each package with the lowest versions that its metadata admits
nox -s build -- mlflow-reference-plugin
nox -s publish -- mlflow-reference-plugin [--index URL]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from tools.workspace import (  # noqa: E402 # the line above makes it importable
    Package,
    external_requirements,
    group,
    mlflow_constraints,
    mlflow_versions,
    package_named,
    packages,
    workspace_dependencies,
)

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True

# Without bytecode each of the many processes that the tests start would compile MLflow anew, for seconds.
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONDONTWRITEBYTECODE": ""}
# Not `python -m uv`: that tells hatch to install into this Python's environment.
UVX = ["uvx"] if shutil.which("uvx") else [import_module("uv").find_uv_bin(), "tool", "run"]
REPOSITORY = "repository"
ELASTICSEARCH = "MLFLOW_PLUGKIT_ELASTICSEARCH_VERSION"
# A plain run takes both ends of each package's range; a tag, a cell's full name and a listing see all of it.
SEES_ALL = any(a in ("-t", "--tags", "-l", "--list", "--list-sessions", "--json") or "tests(" in a for a in sys.argv)


def ends(versions: list[str]) -> list[str]:
    return versions if SEES_ALL else list(dict.fromkeys([versions[0], versions[-1]]))


def cells() -> Sequence[object]:
    """The test matrix: (package, MLflow) pairs, derived from each package's own metadata."""
    repository = nox.param(REPOSITORY, None, id=REPOSITORY, tags=[REPOSITORY])
    return [repository] + [
        nox.param(package.name, version, id=f"{package.name}, mlflow {version}", tags=[package.name])
        for package in packages().values()
        for version in ends(mlflow_versions(package))
    ]


@cache
def wheel(name: str) -> str:
    """A package's wheel, built once per run."""
    place = ROOT / "wheels" / name
    shutil.rmtree(place, ignore_errors=True)
    return str(hatch_build(packages()[name], place, "wheel")[0])


def hatch_build(package: Package, place: Path, *targets: str) -> list[Path]:
    command = [*UVX, "-q", "hatch", "-q", "build", *(f"-t{target}" for target in targets), str(place)]
    subprocess.run(command, cwd=package.folder, check=True)
    return sorted(place.iterdir())


def install_wheels(session: nox.Session, package: Package, *pins: str) -> None:
    """Install the package and its dependencies in this repository as wheels, and what its tests need."""
    members = (*workspace_dependencies(package, tests=True), package)
    session.install(*(wheel(m.name) for m in members), *external_requirements(package, tests=True), *pins)
    session.install("pytest-xdist>=3.6")
    session.run(
        "python", "-c", f"import {package.import_name} as m; assert 'site-packages' in m.__file__, m", silent=True
    )


def run_tests(session: nox.Session, package: Package, *options: str, **env: str) -> None:
    # One process per core; a class stays in one of them, since it may own a server. `-- -n 0` to debug.
    options = ("-n", "auto", "--dist", "loadscope", *options, *session.posargs)
    session.run("pytest", "-c", "pyproject.toml", f"{package.folder}/tests", *options, env={**QUIET, **env})


@nox.session
@nox.parametrize("package,mlflow", cells())
def tests(session: nox.Session, package: str, mlflow: str | None) -> None:
    """Run a package's tests on its built wheel, in an environment with exactly one MLflow."""
    if mlflow is None:
        session.install(*group("repository"))
        session.run("pytest", "tests", *session.posargs, env=QUIET)
        return
    member = packages()[package]
    install_wheels(session, member, f"mlflow-skinny=={mlflow}", *mlflow_constraints(mlflow))
    newest = mlflow == mlflow_versions(member)[-1]
    # Both Elasticsearch are tested with: 8 beside older MLflows, 9 beside the newest.
    elasticsearch = {ELASTICSEARCH: os.environ.get(ELASTICSEARCH, "9" if newest else "8")}
    run_tests(session, member, *(() if newest or SEES_ALL else ("-m", "not once")), **elasticsearch)
    if not SEES_ALL:
        session.log(f"Every MLflow that {package} admits: nox -t {package}   ({', '.join(mlflow_versions(member))})")


@nox.session
@nox.parametrize("package", list(packages()), ids=list(packages()))
def minimums(session: nox.Session, package: str) -> None:
    """Run a package's tests with the lowest version of everything that its metadata admits."""
    member = packages()[package]
    oldest = mlflow_versions(member)[0]
    install_wheels(session, member, "--resolution", "lowest-direct", *mlflow_constraints(oldest))
    run_tests(session, member)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run the whole workflow of the reference plugin on real data. `-- --ui` leaves MLflow's UI running."""
    member = package_named("mlflow-reference-plugin")
    newest = mlflow_versions(member)[-1]
    wheels = [wheel(m.name) for m in (*workspace_dependencies(member, tests=False), member)]
    session.install(*wheels, f"mlflow=={newest}", *mlflow_constraints(newest))
    session.run("python", "examples/quickstart/quickstart.py", *session.posargs, env=QUIET)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, workflows, and that every generated part of the documentation is up to date."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tools/regenerate.py", "--check")
    session.run("python", "tools/lint_workflows.py")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, over all that is shipped and over the repository's own tools."""
    members = list(packages().values())
    newest = mlflow_versions(package_named("mlflow-plugkit"))[-1]
    needs = {line for member in members for line in external_requirements(member, tests=True)}
    session.install(*group("types"), *group("bench"), *sorted(needs), f"mlflow=={newest}")
    sources = [f"{member.folder}/src" for member in members]
    paths = {"MYPYPATH": os.pathsep.join([*sources, str(ROOT), str(ROOT / "bench")])}
    session.run("mypy", *sources, "noxfile.py", "tools", "bench", env=paths)


def distributions(session: nox.Session, package: Package) -> None:
    """Build a package's wheel and sdist into dist/<package>, and check what the index would say of them."""
    place = ROOT / "dist" / package.name
    shutil.rmtree(place, ignore_errors=True)
    session.run("twine", "check", "--strict", *map(str, hatch_build(package, place, "sdist", "wheel")))


@nox.session
def build(session: nox.Session) -> None:
    """Build a package's wheel and sdist: `-- <package>`."""
    package = package_named(first_argument(session))
    session.install("twine>=6")
    distributions(session, package)


@nox.session
def publish(session: nox.Session) -> None:
    """Check that a package may be published, build it and publish it: `-- <package> [--index URL]`."""
    package = package_named(first_argument(session))
    if any("@" in argument for argument in session.posargs):
        session.error("Put the index's user and password in HATCH_INDEX_USER and HATCH_INDEX_AUTH, not in its URL.")
    session.install("packaging>=24", "hatch>=1.16", "twine>=6", "tomli>=2; python_version < '3.11'")
    session.run("python", "tools/release.py", "check", *session.posargs)
    distributions(session, package)
    session.run("python", "tools/release.py", "upload", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Turn a package's change fragments into a section of its CHANGELOG.md: `-- <package>`."""
    package = package_named(first_argument(session))
    if not list((package.folder / "changes").glob("*.md")):
        session.error(f"{package.name} has no change fragments. Add one: changes/+what.fixed.md")
    session.install("towncrier>=24.8")
    about = ("--config", str(ROOT / "towncrier.toml"), "--dir", str(package.folder))
    session.run("towncrier", "build", "--yes", *about, "--name", package.name, "--version", package.version)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, where a warning is an error, and run the examples and the tutorial in it."""
    members = list(packages().values())
    session.install(*group("docs"), *(wheel(m.name) for m in members), "rich", "click", "copier")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", env=QUIET)
    session.run("pytest", "-c", "pyproject.toml", "docs", *session.posargs, env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure side by side: `-- NAME` for bench/bench_NAME.py, as `-- import`, `-- tracking` or `-- evaluator`."""
    name = first_argument(session)
    plugins = [package for package in packages().values() if package.is_plugin]
    members = dict.fromkeys([m.name for p in plugins for m in (*workspace_dependencies(p, tests=False), p)])
    newest = mlflow_versions(package_named("mlflow-plugkit"))[-1]
    kit = f"{wheel('mlflow-plugkit-testing')}[elasticsearch]"
    session.install(*(wheel(m) for m in members), kit, *group("bench"), f"mlflow=={newest}")
    session.run("python", f"bench/bench_{name}.py", *session.posargs[1:], env=QUIET)


@nox.session
def elasticsearch(session: nox.Session) -> None:
    """Run a real Elasticsearch on loopback until Ctrl-C: `-- [--version 8|9] [--port N] [--folder DIR]`."""
    session.install(wheel("mlflow-plugkit"), f"{wheel('mlflow-plugkit-testing')}[elasticsearch]")
    session.run("python", "-m", "mlflow_plugkit_testing.elasticsearch", *session.posargs, env=QUIET)


@nox.session
def ledger(session: nox.Session) -> None:
    """Write the page of the Elasticsearch stores' methods: each installs every MLflow. `-- --check` compares."""
    session.install("packaging", "uv", "tomli; python_version < '3.11'")
    session.run("python", "tools/method_ledger.py", *session.posargs, env=QUIET)


@nox.session
def new(session: nox.Session) -> None:
    """Render the template into packages/: `-- mlflow-demo-artifacts artifact_repository`."""
    session.install(f"{wheel('mlflow-plugkit')}[cli]")
    session.run("mlflow-plugkit", "new", *session.posargs, "--in-repository")


@nox.session
def template(session: nox.Session) -> None:
    """Render a plugin of each type and run its lint, types and tests on the oldest and the newest MLflow."""
    session.install("packaging", "tomli; python_version < '3.11'")
    session.run("python", "tools/check_template.py", *session.posargs, env=QUIET)


def first_argument(session: nox.Session) -> str:
    if not session.posargs:
        session.error(f"Say which: nox -s {session.name} -- <name>. Packages: {', '.join(packages())}.")
    return session.posargs[0]
