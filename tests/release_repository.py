"""A copy of this repository with a history of its own, in which releases can be prepared, broken and made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from release_index import PASSWORD, USER

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
IDENTITY = {
    **{f"GIT_{role}_{field}": "release-test" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
}
OUTER = ("NOX_", "HATCH_", "VIRTUAL_ENV", "UV_PYTHON", "CI", "GIT_", "MLFLOW_", "PYTEST_")


def environment(**more: str) -> dict[str, str]:
    """This process's environment without the nox session, the index or the MLflow that it may run under."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUTER)}
    path = os.pathsep.join([str(BIN), kept.get("PATH", "")])
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return {**kept, **IDENTITY, **quiet, "PATH": path, **more}


class Repository:
    """A git repository with this one's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_this_tree(cls, folder: Path) -> Repository:
        """Copy all that git tracks here, or would, and commit it."""
        listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        repository = cls(folder)
        repository.git("init", "-q", "-b", "main")
        repository.commit()
        return repository

    def clone(self, folder: Path) -> Repository:
        run(["git", "clone", "-q", str(self.folder), str(folder)], self.folder)
        return Repository(folder)

    def git(self, *arguments: str) -> str:
        done = run(["git", *arguments], self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", "A change")

    def tag(self, name: str) -> None:
        self.git("tag", "--force", name)

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert old in text, f"{path} does not hold {old!r}"
        (self.folder / path).write_text(text.replace(old, new))

    def release(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "tools/release.py", *arguments], self.folder, **more)

    def nox(self, session: str, *arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        """Run a nox session as a releaser would: the credentials come from the environment."""
        command = [sys.executable, "-m", "nox", "-s", session, "--", *arguments]
        return run(command, self.folder, HATCH_INDEX_USER=USER, HATCH_INDEX_AUTH=password)


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command with both its outputs in `stdout` and `stderr`, for ten minutes at most."""
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=600, check=False
    )
