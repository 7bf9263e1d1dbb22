"""The tracking store on Elasticsearch beside MLflow's SqlAlchemyStore on PostgreSQL, in turn, in one process.

    nox -s bench -- tracking [--parts writes threads crowds histories searches traces]
        [--runs 1000 10000 100000] [--traces 10000] [--rounds 10] [--json FILE]

Both stores are used as MLflow's server uses them, without HTTP in front. Shown are medians in milliseconds and, in
brackets, how many times faster than PostgreSQL. Both servers write each change to the disk before they answer.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tracking_search
import tracking_traces
import tracking_writes
from tables import Table
from tracking_stores import REFERENCE, stores

PARTS = ("writes", "threads", "crowds", "histories", "searches", "traces")


def measured(both: Mapping[str, Any], options: argparse.Namespace) -> Iterator[Table]:
    """The tables of the parts that were asked for."""
    if "writes" in options.parts:
        yield tracking_writes.writes(both, options.rounds)
    if "threads" in options.parts:
        yield from tracking_writes.threads(both, max(2, options.rounds // 3))
    if "histories" in options.parts:
        yield tracking_writes.histories(both, options.rounds)
    if "searches" in options.parts:
        yield from tracking_search.tables(both, options.runs, options.rounds, REFERENCE)
    if "traces" in options.parts:
        yield tracking_traces.measure(both, options.traces, options.rounds)
    if "crowds" in options.parts:
        yield tracking_writes.crowds(both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the samples to this file")
    options = parser.parse_args()
    for name in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    results = []
    with stores() as (both, versions):
        print(versions, flush=True)
        for table in measured(both, options):
            print(f"\n{table.markdown()}", flush=True)
            results.append(table.plain())
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
