"""The test jobs of CI, as a GitHub matrix, from nox's own listing:

nox -s tests --list-sessions --json | python tools/ci_matrix.py

One job for each package and Python. The package's whole MLflow range runs on one Python, both ends of it on the others;
the repository's own tests run on the oldest and the newest Python.
"""

from __future__ import annotations

import json
import sys
from typing import Any

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
WHOLE_RANGE = "3.12"
LARGEST = 256  # GitHub's limit for the jobs of one matrix


def matrix(sessions: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Jobs of `package`, `python` and `sessions` (one a line), from the rows that nox prints (oldest MLflow first)."""
    cells: dict[str, list[str]] = {}
    whole: set[str] = set()
    for row in sessions:
        package = row["call_spec"]["package"]
        cells.setdefault(package, []).append(row["session"])
        if row["call_spec"]["mlflow"] is not None:
            whole.add(package)
    jobs = []
    for package, all_cells in cells.items():
        for python in PYTHONS if package in whole else [PYTHONS[0], PYTHONS[-1]]:
            ends = list(dict.fromkeys([all_cells[0], all_cells[-1]]))
            chosen = all_cells if python == WHOLE_RANGE else ends
            jobs.append({"package": package, "python": python, "sessions": "\n".join(chosen)})
    return {"include": jobs}


def main() -> int:
    jobs = matrix(json.load(sys.stdin))
    if not 0 < len(jobs["include"]) <= LARGEST:
        print(f"{len(jobs['include'])} jobs: a GitHub matrix takes 1 to {LARGEST}.", file=sys.stderr)
        return 1
    print(json.dumps(jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
