"""What the tests share: an environment without CI and schedulers, a git repository, and fake commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_run_context import experiment, jobs, settings, tables
from mlflow_run_context.plugin import RunContext

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of any system, time enough for slow sources, and nothing kept from the test before."""
    systems = (*tables.CI, *tables.WORKFLOWS, *tables.SCHEDULERS)
    variables = {v for s in systems for names in (s.markers, *s.rows.values()) for v in names}
    for name in (*variables, *tables.IMAGES, *settings.VARIABLES, "CUDA_VISIBLE_DEVICES", "CONDA_DEFAULT_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_DEADLINE", "20")
    monkeypatch.setattr(sys, "argv", [os.path.join(sys.prefix, "bin", "pytest")])
    forget()
    yield
    forget()


def forget() -> None:
    jobs.reset()
    experiment._known.clear()
    settings.warn.cache_clear()


@pytest.fixture
def tags() -> Callable[[], dict[str, str]]:
    """Ask as MLflow does."""

    def tags() -> dict[str, str]:
        context = RunContext()
        assert context.in_context() is True
        return context.tags()

    return tags


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Run git in a new repository with one commit, which becomes the working directory."""
    top = tmp_path / "project"
    top.mkdir()
    monkeypatch.chdir(top)
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = {f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments: str, folder: Path = top) -> str:
        environ = {**os.environ, **quiet, **names}
        run = subprocess.run(["git", *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    git("init", "-q", "-b", "main")
    (top / "train.py").write_text("print(1)\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return git


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a shell script on the PATH, before all others."""

    def command(name: str, text: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
        return path

    return command
