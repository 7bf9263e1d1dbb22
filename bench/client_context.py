"""What run context costs each `mlflow.start_run`, with all sources on.

    python bench/client_context.py [--processes 9] [--json FILE]

Each figure is the median over fresh processes. A process works in a git repository with uncommitted changes and a
lock file, on a local SQLite store. It starts runs without the plugin first, so that what MLflow loads and makes once
is behind it; then one with the plugin, its first; then pairs of runs without and with. The first run's cost is its time
less the median without, with the plugin's import in it. CPU is that of the calling thread, for busy machines. What
MLflow itself takes to store as many tags is measured beside it. Three cases: no `nvidia-smi`, one that answers after
20 ms, one that hangs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from report import publish

CASES = {
    "no nvidia-smi": None,
    "nvidia-smi answers after 20 ms": "sleep 0.02; echo 'NVIDIA H100, 550.54.15, 81559'",
    "nvidia-smi hangs": "sleep 60",
}

PROBE = """
import json, statistics, sys, time
import mlflow
from mlflow.tracking.context.registry import _run_context_provider_registry as registry
from mlflow.tracking.default_experiment.registry import _default_experiment_provider_registry as experiments
ours = [p for p in registry if type(p).__module__ == "mlflow_run_context.plugin"]
assert len(ours) == 1, list(registry)
others = [p for p in registry if p not in ours]
defaults = list(experiments)
both = others + ours
def start(providers, tags=None):
    registry._registry[:] = providers
    experiments._registry[:] = [p for p in defaults if providers is both or "run_context" not in type(p).__module__]
    wall, cpu = time.perf_counter(), time.thread_time()
    mlflow.start_run(tags=tags)
    spent = time.perf_counter() - wall, time.thread_time() - cpu
    mlflow.end_run()
    return spent
def median(rows, column):
    return statistics.median(row[column] for row in rows)
def differences(pairs):
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairs]
mlflow.set_tracking_uri(sys.argv[1])
for _ in range(5):
    start(others)
before = [start(others) for _ in range(15)]
assert "mlflow_run_context.provider" not in sys.modules
first = [spent - median(before, column) for column, spent in enumerate(start(both))]
time.sleep(0.5)
pairs = [(start(others), start(both)) for _ in range(40)]
tags = len([key for key in ours[0].tags() if key.startswith("ctx.")])
by_hand = [(start(others), start(others, ours[0].tags())) for _ in range(20)]
later = [median(differences(p), column) for p in (pairs, by_hand) for column in (0, 1)]
print(json.dumps([*first, *later, median([a for a, _ in pairs], 0), tags]))
"""


def figures(processes: int = 9) -> dict[str, Any]:
    """Milliseconds; `nox -s bench -- client` takes its part from here."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = repository(Path(folder, "project"))
        results: dict[str, list[list[float]]] = {case: [] for case in CASES}
        for number in range(processes):
            for case, script in CASES.items():
                results[case].append(probe(project, Path(folder, f"{number}.db"), script))
    for case, rows in results.items():
        *times, tags = (statistics.median(row[column] for row in rows) for column in range(8))
        first, first_cpu, later, later_cpu, hand, hand_cpu, plain = (round(seconds * 1e3, 2) for seconds in times)
        report["start_run without run context, ms (median)"] = plain
        report[f"first start_run: cost, ms (median: wall, CPU; {case}; {tags:.0f} tags)"] = [first, first_cpu]
        report[f"later start_run: cost, ms (median: wall, CPU; {case})"] = [later, later_cpu]
        report[f"the same tags given by hand: cost, ms (median: wall, CPU; {case})"] = [hand, hand_cpu]
    return report


def probe(project: Path, database: Path, script: str | None) -> list[float]:
    """Of one fresh process: (wall, CPU) seconds of the first run, of later ones, of tags by hand; plain; tags."""
    commands = project.parent / "bin"
    shutil.rmtree(commands, ignore_errors=True)
    commands.mkdir()
    if script:
        (commands / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (commands / "nvidia-smi").chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_RUN_")}
    environ |= {"PATH": os.pathsep.join([str(commands), os.environ["PATH"]]), "GIT_PYTHON_REFRESH": "quiet"}
    command = [sys.executable, "-W", "ignore", "-c", PROBE, f"sqlite:///{database}"]
    run = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False, timeout=300)
    if run.returncode:
        raise SystemExit(run.stderr[-3000:])
    return list(json.loads(run.stdout.splitlines()[-1]))


def repository(folder: Path) -> Path:
    """A git repository with 200 files, one of them changed, and a lock file."""
    folder.mkdir()
    for number in range(200):
        (folder / f"module_{number}.py").write_text(f"value = {number}\n" * 20)
    (folder / "uv.lock").write_text("version = 1\n" * 2000)
    who = ["-c", "user.name=Plugkit", "-c", "user.email=plugkit@example.com"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "module_0.py").write_text("value = 1\n")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    report = {"mlflow": version("mlflow-skinny"), **figures(options.processes)}
    publish(report, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
