"""The validation evaluator: coverage of its intervals, what its slice search finds, and what it costs.

    nox -s bench -- evaluator [--coverage] [--search] [--speed] [--rounds 1000] [--rows 1000000] [--json FILE]

Without a section it measures all three. --coverage draws data sets from known distributions and counts how often each
interval holds the true value. --search plants slices in data sets, and counts what is found and what is false. --speed
evaluates a data set of 30 columns, and puts what users would take instead beside it: MLflow's own evaluator,
fairlearn's MetricFrame, scipy.stats.bootstrap. Each measurement of speed runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from report import publish

SECTIONS = ("coverage", "search", "speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rounds", type=int, default=1000, help="data sets for each figure of --coverage")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of --speed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    chosen = [name for name in SECTIONS if getattr(options, name)] or SECTIONS
    names = ("mlflow-skinny", "numpy", "pandas", "scipy", "scikit-learn", "fairlearn")
    found: dict[str, Any] = {"versions": ", ".join(f"{n} {version(n)}" for n in names)}
    if "coverage" in chosen:
        from evaluator_simulations import coverage

        found |= coverage(options.rounds)
    if "search" in chosen:
        from evaluator_simulations import search

        found |= search()
    if "speed" in chosen:
        found |= speed(options.rows)
    publish(found, options.json)


def speed(rows: int) -> dict[str, Any]:
    """Wall and CPU seconds and peak memory of each contestant, in a process of its own."""
    found: dict[str, Any] = {}
    for task in ("evaluate", "default", "groups", "frame", "intervals", "scipy"):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-W",
                "ignore",
                str(Path(__file__).with_name("evaluator_speed.py")),
                task,
                str(rows),
            ]
            run = subprocess.run(
                command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=3600, check=False
            )
        if run.returncode:
            raise SystemExit(f"{task}: {run.stderr[-3000:]}")
        found |= json.loads(run.stdout.splitlines()[-1])
    return found | ratios(found)


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """How many times more CPU time the other one takes: the load of the machine blurs the wall time."""
    pairs = {
        "MLflow's default evaluator / ours, in the evaluator": ("default", "evaluate"),
        "fairlearn's MetricFrame / ours": ("frame", "groups"),
        "scipy.stats.bootstrap / ours, per interval": ("scipy", "intervals"),
    }
    return {name: round(found[a]["cpu"] / found[b]["cpu"], 2) for name, (a, b) in pairs.items()}


if __name__ == "__main__":
    main()
