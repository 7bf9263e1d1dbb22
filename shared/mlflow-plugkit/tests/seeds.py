"""Fake distributions: a dist-info folder and modules in a temporary folder that goes on PYTHONPATH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

GOOD_RANGE = ("mlflow-skinny>=2.22,<4",)
REPOSITORY = """
    class Repository:
        def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **kwargs):
            self.artifact_uri = artifact_uri
"""


@dataclass
class Seeds:
    """A folder of fake distributions."""

    folder: Path

    def add(
        self,
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str] | None = None,
        requires: Sequence[str] = GOOD_RANGE,
        version: str = "1.0",
    ) -> None:
        """Install a distribution; groups are given without `mlflow.`, modules as relative path -> source."""
        info = self.dist_info(name, version, requires)
        sections = []
        for group, entries in entry_points.items():
            sections += [f"[mlflow.{group}]", *(f"{n} = {value}" for n, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(sections) + "\n")
        for path, source in (modules or {}).items():
            self.module(path, source)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in modules or {}))

    def dist_info(self, name: str, version: str, requires: Sequence[str] = ()) -> Path:
        """Install metadata only."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n")
        return info

    def module(self, path: str, source: str) -> None:
        """Write a module."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source))


def environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment without anything that configures MLflow or colours, with a home of its own."""
    others = ("NETRC", "PYTHONPATH", "FORCE_COLOR", "CLICOLOR_FORCE")
    clean = {n: v for n, v in os.environ.items() if "MLFLOW" not in n and n not in others}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "COLUMNS": "200"}
    return {**clean, **quiet, "HOME": str(home), **variables}


def run(
    arguments: Sequence[str], env: Mapping[str, str], *, flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, in a process of its own."""
    command = [sys.executable, *flags, "-m", "mlflow_plugkit.cli", *arguments]
    return subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=300, cwd=env["HOME"])


def run_json(
    arguments: Sequence[str], env: Mapping[str, str]
) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """Run with `--json`; the parsed output and the process."""
    done = run([*arguments, "--json"], env)
    assert done.stdout.startswith("{"), done.stderr
    return json.loads(done.stdout), done
