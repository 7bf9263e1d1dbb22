"""What `mlflow-elasticsearch import` takes from a SQLite file, beside reading the file alone.

    nox -s bench -- migrate [--runs 1000] [--keys 10] [--steps 100] [--json FILE]

One row each, once: to read runs and points as the import does; to read the points through MLflow's
`get_metric_history`, one call for each run and key, for a tenth of the runs and then times ten; the import without its
comparison; the comparison alone. All in one process on one thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from elastic import node, prefix
from mlflow.entities import ViewType

from mlflow_plugkit_testing.server import fresh_database


def fill(folder: Path, runs: int, keys: int, steps: int) -> str:
    """A SQLite file with an experiment of so many runs; the URI. Rows are inserted past MLflow, which takes minutes."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = fresh_database(folder)
    store = SqlAlchemyStore(uri, folder.as_uri())
    experiment = store.create_experiment("measured")
    ids = [store.create_run(experiment, "me", 1_000 + number, [], None).info.run_id for number in range(runs)]
    store.engine.dispose()
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", _params(ids))
        names = "key, value, timestamp, run_uuid, step, is_nan"
        points = _points(ids, keys, range(steps))
        connection.executemany(f"INSERT INTO metrics ({names}) VALUES (?, ?, ?, ?, ?, 0)", points)  # constants
        last = _points(ids, keys, range(steps - 1, steps))
        connection.executemany(f"INSERT INTO latest_metrics ({names}) VALUES (?, ?, ?, ?, ?, 0)", last)
    return uri


def _params(ids: list[str]) -> Iterator[tuple[str, str, str]]:
    return ((f"p{key}", f"value {number % 7}", run_id) for number, run_id in enumerate(ids) for key in range(10))


def _points(ids: list[str], keys: int, steps: range) -> Iterator[tuple[str, float, int, str, int]]:
    return (
        (f"m{key}", 1.0 / (1 + step + number + key), 1_700_000_000_000 + step * 1_000, run_id, step)
        for number, run_id in enumerate(ids)
        for key in range(keys)
        for step in steps
    )


def timed(do: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def read_alone(source: Any) -> None:
    """What the import reads, and nothing else."""
    token, columns = None, ["run_uuid", "key", "step", "timestamp", "value", "is_nan"]
    while True:
        runs, token = source.tracking._search_runs(["1"], "", ViewType.ALL, 100, [], token)
        ids = [run.info.run_id for run in runs]
        for _ in source.rows("metrics", columns, {"run_uuid": ids}, columns):
            pass
        if not token:
            return


def read_through_mlflow(source: Any, runs: int) -> None:
    """The points of some runs, as a script of one's own would read them."""
    for run in source.tracking._search_runs(["1"], "", ViewType.ALL, runs, [], None)[0]:
        for key in run.data.metrics:
            source.tracking.get_metric_history(run.info.run_id, key)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    from mlflow_elasticsearch_tracking.importer import TrackingImporter
    from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
    from mlflow_plugkit_elasticsearch.import_progress import Progress
    from mlflow_plugkit_elasticsearch.import_run import copy, differences
    from mlflow_plugkit_elasticsearch.import_source import ImportSource

    with tempfile.TemporaryDirectory() as folder, node() as (url, version), prefix(url) as target:
        source = ImportSource(fill(Path(folder), options.runs, options.keys, options.steps))
        documents = Documents.of(ElasticsearchSettings.from_uri(target))
        importer, sampled = TrackingImporter(source, target, documents), options.runs // 10
        found: list[str] = []
        seconds = {
            "read, as the import does": timed(lambda: read_alone(source)),
            "read with get_metric_history": 10 * timed(lambda: read_through_mlflow(source, sampled)),
            "import": timed(lambda: copy(source, documents, [importer], Progress("copying"), resume=False)),
            "compare": timed(lambda: found.extend(differences([importer], Progress("comparing"), 3))),
        }
        source.close()
    assert not found, found
    points = options.runs * options.keys * options.steps
    print(f"\n{options.runs} runs, {options.keys} metrics, {options.steps} steps; Elasticsearch {version}\n")
    print("| | s | runs/s | points/s |\n| --- | --- | --- | --- |")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.1f} | {options.runs / taken:.0f} | {points / taken:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=2))


if __name__ == "__main__":
    main()
