"""What the installed plugins cost each `import mlflow`: this environment against one without them.

    nox -s bench -- import [--runs 20] [--json FILE]

Both environments hold the same MLflow. Runs alternate, one fresh process each, after one warm-up round;
the cost is the median of the paired differences, which a busy machine blurs by tens of milliseconds. So
the time spent in loading the entry points is measured, too, and the modules that come with them are named.
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
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from report import publish

PROBE = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import mlflow
print(json.dumps([(time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3, sorted(sys.modules)]))
"""


LOADING = """
import importlib.metadata, time
spent, load = 0.0, importlib.metadata.EntryPoint.load
def timed(self):
    global spent
    start = time.perf_counter()
    try:
        return load(self)
    finally:
        spent += (time.perf_counter() - start) * (self.value.partition('.')[0] != 'mlflow')
importlib.metadata.EntryPoint.load = timed
import mlflow
print(spent * 1e3)
"""


def measure(python: Path, folder: Path) -> tuple[float, float, set[str]]:
    """Wall and CPU milliseconds of `import mlflow` in a fresh process, and the modules loaded then."""
    run = subprocess.run([python, "-W", "ignore", "-c", PROBE], capture_output=True, text=True, check=True, cwd=folder)
    wall, cpu, modules = json.loads(run.stdout.splitlines()[-1])
    return wall, cpu, set(modules)


def loading(folder: Path) -> float:
    """Milliseconds that `import mlflow` spends in loading entry points other than MLflow's own."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING], capture_output=True, text=True, check=True, cwd=folder
    )
    return float(run.stdout.splitlines()[-1])


def plain_environment(folder: Path) -> Path:
    """An environment with all that this one has but the plugins, and its interpreter."""
    uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
    ours = {d.metadata["Name"] for d in distributions() if is_plugin(d)}
    pins = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"] not in ours})
    subprocess.run([*uv, "venv", "-q", "-p", sys.executable, folder], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([*uv, "pip", "install", "-q", "--no-deps", "-p", python, *pins], check=True)
    return python


def is_plugin(distribution: Any) -> bool:
    """Whether a distribution plugs into MLflow, or is what our plugins share."""
    name = distribution.metadata["Name"]
    groups = {entry.group for entry in distribution.entry_points}
    plugs_in = any(group.startswith("mlflow.") for group in groups) and name not in ("mlflow", "mlflow-skinny")
    return plugs_in or name.startswith("mlflow-plugkit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain = plain_environment(Path(folder, "plain"))
        pairs = []
        for number in range(options.runs + 1):
            pair = measure(plain, Path(folder)), measure(Path(sys.executable), Path(folder))
            pairs += [pair] if number else []
            print(f"\r{number} of {options.runs} rounds", end="", flush=True)
        report = figures(pairs)
        times = [loading(Path(folder)) for _ in range(options.runs)]
        report["time spent in loading the plugins' entry points, ms (median)"] = round(statistics.median(times), 1)
    print()
    publish(report, options.json)
    return 0


def figures(pairs: list[Any]) -> dict[str, Any]:
    """The medians, in milliseconds, and the modules that the plugins bring in."""

    def median_of(column: int, which: int) -> float:
        return round(float(statistics.median(pair[which][column] for pair in pairs)), 1)

    def cost(column: int) -> float:
        return round(float(statistics.median(with_[column] - without[column] for without, with_ in pairs)), 1)

    return {
        "mlflow": version("mlflow-skinny"),
        "plugins": ", ".join(sorted(d.metadata["Name"] for d in distributions() if is_plugin(d))),
        "rounds": len(pairs),
        "import mlflow, without plugins, ms (wall, CPU)": (median_of(0, 0), median_of(1, 0)),
        "import mlflow, with plugins, ms (wall, CPU)": (median_of(0, 1), median_of(1, 1)),
        "cost of the plugins, ms (median of paired differences: wall, CPU)": (cost(0), cost(1)),
        "modules that only the plugins load": sorted(pairs[0][1][2] - pairs[0][0][2]),
    }


if __name__ == "__main__":
    sys.exit(main())
