"""What the three client-side plugins cost: each request, each run, and each `import mlflow`.

    nox -s bench -- client [--rounds 15] [--requests 600] [--processes 9] [--json FILE]

The parts stand in client_auth.py, client_headers.py and client_context.py, which run by themselves, too. Here they run
in a process each, and the import is added: `import mlflow` in fresh processes with and without the entry points of the
three plugins in turn, and the time spent in loading them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from report import publish

PLUGINS = ("mlflow_request_auth", "mlflow_request_headers", "mlflow_run_context")
PARTS = dict(zip(PLUGINS, ("client_auth", "client_headers", "client_context"), strict=True))
AMOUNTS = {"client_context": "processes"}

IMPORT = """
import importlib.metadata as metadata, json, sys, time
hidden, ours = sys.argv[1] == "without", tuple(sys.argv[2:])
listed, load, spent = metadata.entry_points, metadata.EntryPoint.load, 0.0
def entry_points(**which):
    found = listed(**which)
    return [e for e in found if not (hidden and e.value.startswith(ours))] if "group" in which else found
def timed(self):
    global spent
    begin = time.perf_counter()
    try:
        return load(self)
    finally:
        spent += (time.perf_counter() - begin) * self.value.startswith(ours)
metadata.entry_points, metadata.EntryPoint.load = entry_points, timed
wall, cpu = time.perf_counter(), time.process_time()
import mlflow
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, spent]))
"""


def importing(rounds: int) -> dict[str, Any]:
    """Milliseconds that the installed plugins add to `import mlflow`."""
    installed = [name for name in PLUGINS if find_spec(name)]
    rows = []
    for number in range(rounds + 1):
        pair = []
        for which in ("without", "with"):
            command = [sys.executable, "-W", "ignore", "-c", IMPORT, which, *installed]
            run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            pair.append(json.loads(run.stdout.splitlines()[-1]))
        rows += [pair] if number else []  # the first round fills the caches
    plain, cost = rows_median(rows, 0), [[b - a for a, b in zip(*row, strict=True)] for row in rows]
    return {
        "plugins in `import mlflow`": ", ".join(installed),
        "import mlflow without them, ms (wall, CPU)": plain,
        "cost of the plugins, ms (median of paired differences: wall, CPU)": [
            round(statistics.median(row[column] for row in cost) * 1e3, 2) for column in (0, 1)
        ],
        "spent in loading their entry points, ms (median)": round(
            statistics.median(row[1][2] for row in rows) * 1e3, 2
        ),
    }


def rows_median(rows: list[Any], which: int) -> list[float]:
    return [round(statistics.median(row[which][column] for row in rows) * 1e3, 1) for column in (0, 1)]


def part(name: str, amount: int) -> dict[str, Any]:
    """The figures of one part, taken in a process of its own."""
    code = f"import json, {name}; print(json.dumps({name}.figures({amount})))"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=1800)
    if run.returncode:
        raise SystemExit(f"{name}: {run.stderr[-3000:]}")
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    report: dict[str, Any] = {"mlflow": version("mlflow-skinny"), **importing(options.rounds)}
    for plugin, name in PARTS.items():
        if find_spec(plugin) and Path(__file__).with_name(f"{name}.py").is_file():
            report |= part(name, getattr(options, AMOUNTS.get(name, "requests")))
    publish(report, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
