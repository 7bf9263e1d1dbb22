"""The workflows: the matrix that CI takes from nox, who may do what, and the lint that must not be skipped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from release_repository import ROOT, Repository, environment, run

from tools.ci_matrix import PYTHONS, WHOLE_RANGE, matrix
from tools.workspace import mlflow_versions, packages

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def jobs() -> list[dict[str, str]]:
    """The matrix, by the command that CI runs."""
    listing = run([sys.executable, "-m", "nox", "-s", "tests", "--list-sessions", "--json"], ROOT)
    assert listing.returncode == 0, listing.stderr
    made = subprocess.run(
        [sys.executable, "tools/ci_matrix.py"],
        cwd=ROOT,
        input=listing.stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(made.stdout)["include"])


def test_one_python_runs_every_package_on_every_mlflow_it_admits(jobs: list[dict[str, str]]) -> None:
    ran = {line for job in jobs if job["python"] == WHOLE_RANGE for line in job["sessions"].splitlines()}
    assert ran == {f"tests({p.name}, mlflow {v})" for p in packages().values() for v in mlflow_versions(p)}


def test_the_other_pythons_run_every_package_on_both_ends(jobs: list[dict[str, str]]) -> None:
    for python in set(PYTHONS) - {WHOLE_RANGE}:
        for package in packages().values():
            [job] = [job for job in jobs if (job["package"], job["python"]) == (package.name, python)]
            versions = mlflow_versions(package)
            ends = [versions[0], versions[-1]]
            assert job["sessions"].splitlines() == [f"tests({package.name}, mlflow {v})" for v in ends]


def test_the_repositorys_own_tests_run_on_the_oldest_and_the_newest_python(jobs: list[dict[str, str]]) -> None:
    pythons = [job["python"] for job in jobs if job["sessions"] == "tests(repository)"]
    assert pythons == [PYTHONS[0], PYTHONS[-1]]


def test_a_package_with_one_mlflow_runs_it_once() -> None:
    row = {"session": "tests(a, mlflow 3.0)", "call_spec": {"package": "a", "mlflow": "3.0"}}
    assert {job["sessions"] for job in matrix([row])["include"]} == {"tests(a, mlflow 3.0)"}


def workflow(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_may_write_but_the_one_that_publishes(path: Path) -> None:
    content = workflow(path)
    assert content["permissions"] == {}
    for name, job in content["jobs"].items():
        publishes = (path.name, name) == ("release.yml", "publish")
        allowed: dict[str, str] = {"id-token": "write"} if publishes else {"contents": "read"}
        assert job["permissions"].items() <= allowed.items(), name


def test_the_job_that_publishes_runs_no_code_of_this_repository() -> None:
    publish = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["publish"]
    assert publish["environment"]["name"] == "pypi"
    used = [step["uses"].split("@")[0] for step in publish["steps"]]
    assert used == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert not any("run" in step for step in publish["steps"])


def test_the_tags_that_start_a_release_are_those_of_the_packages() -> None:
    [pattern] = workflow(ROOT / ".github" / "workflows" / "release.yml")[True]["push"]["tags"]
    expression = re.compile(pattern.replace("*", ".*"))
    for package in packages().values():
        assert expression.fullmatch(f"{package.name}-v{package.version}")
    assert not expression.fullmatch("v1.0.0")


@pytest.mark.parametrize(("ci", "status", "word"), [("true", 1, "error"), ("", 0, "warning")])
def test_an_actionlint_that_cannot_be_had_is_said_and_fails_in_ci(
    ci: str, status: int, word: str, tmp_path: Path
) -> None:
    """On a PATH with nothing on it but a zizmor that finds nothing."""
    repository = Repository.of_this_tree(tmp_path / "repository")
    only = tmp_path / "bin"
    only.mkdir()
    (only / "zizmor").write_text("#!/bin/sh\nexit 0\n")
    (only / "zizmor").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "tools/lint_workflows.py"],
        cwd=repository.folder,
        env={**environment(CI=ci), "PATH": str(only)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert f"{word}: actionlint did NOT run" in done.stderr
