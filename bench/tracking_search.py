"""Searches for runs in tracking stores, side by side: the search part of `bench_tracking.py`, and a program itself.

    python bench/tracking_search.py [--runs 1000 10000 100000] [--rounds 10] [--everywhere 0] [--json FILE]

Each run has ten metrics, params and tags, all runs lie in one experiment, and the stores hold the same. A size is
measured after topping the experiment up to it. The stores take turns, operation by operation; shown are medians and
how many times faster than MLflow's SqlAlchemyStore on PostgreSQL. An operation that does not find equally many runs
in all stores ends the program. `--everywhere N` measures N small runs in N / 50 experiments, too, searched in all of
them at once.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import ViewType
from tables import Table, interleave
from tracking_stores import REFERENCE, stores

FIRST_START = 1_700_000_000_000
RUNS_PER_EXPERIMENT = 50
Search = Callable[[], int]


class Made(NamedTuple):
    """A run to fill a store with."""

    run_id: str
    experiment_id: str
    name: str
    start_time: int
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


def made(number: int, experiment_id: str) -> Made:
    """Run `number`: p0 and t0 are unique, p1 has ten values, t1 a hundred, metrics lie between 0 and 1."""
    chance = random.Random(number)
    start = FIRST_START + number * 1_000
    params = {"p0": str(number), "p1": f"v{number % 10}"}
    tags = {"mlflow.runName": f"run-{number}", "mlflow.user": "bench", "mlflow.source.type": "LOCAL"}
    tags |= {"t0": f"uid-{number}", "t1": f"left-{chance.randrange(100)}-right"}
    params |= {f"p{place}": f"value-{place}-{chance.randrange(100)}" for place in range(2, 10)}
    tags |= {f"t{place}": f"tag-{place}-{chance.randrange(1_000)}" for place in range(2, 7)}
    metrics = {f"m{place}": chance.random() for place in range(10)}
    return Made(f"{chance.getrandbits(128):032x}", experiment_id, f"run-{number}", start, params, tags, metrics)


def small(number: int, experiment_id: str) -> Made:
    """Run `number` with two tags alone; one of a thousand has the tag that is searched for."""
    chance = random.Random(number)
    tags = {"team": f"team-{number % 1_000}", "mlflow.runName": f"run-{number}"}
    return Made(
        f"{chance.getrandbits(128):032x}", experiment_id, f"run-{number}", FIRST_START + number * 1_000, {}, tags, {}
    )


# Filling.


def fill(store: Any, runs: Iterator[Made]) -> None:
    """Write runs past the store's API: MLflow's store by its own tables, ours by its own documents."""
    write = _write_documents if hasattr(store, "docs") else _write_rows
    batch: list[Made] = []
    for run in runs:
        batch.append(run)
        if len(batch) == 2_000:
            write(store, batch)
            batch = []
    if batch:
        write(store, batch)


def _write_documents(store: Any, runs: Sequence[Made]) -> None:
    from mlflow_elasticsearch_tracking.indices import RUNS
    from mlflow_elasticsearch_tracking.run_documents import new_run_source, run_document
    from mlflow_plugkit_elasticsearch import Action, bulk

    actions = []
    for run in runs:
        artifacts = f"mlflow-artifacts:/{run.experiment_id}/{run.run_id}/artifacts"
        source = new_run_source(run.run_id, run.experiment_id, run.name, "bench", run.start_time, artifacts) | {
            "status": "FINISHED",
            "end_time": run.start_time + 900,
            "p": run.params,
            "t": run.tags,
            "m": {key: [value, run.start_time, 0] for key, value in run.metrics.items()},
        }
        actions.append(Action("index", RUNS, run.run_id, run_document(source)))
    bulk(store.docs, actions)


def _write_rows(store: Any, runs: Sequence[Made]) -> None:
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import insert

    rows: dict[Any, list[dict[str, Any]]] = {models.SqlRun: [_row(run) for run in runs]}
    rows[models.SqlParam] = [_entry(run, key, value) for run in runs for key, value in run.params.items()]
    rows[models.SqlTag] = [_entry(run, key, value) for run in runs for key, value in run.tags.items()]
    rows[models.SqlLatestMetric] = [
        _entry(run, key, value) | {"timestamp": run.start_time, "step": 0, "is_nan": False}
        for run in runs
        for key, value in run.metrics.items()
    ]
    with store.engine.begin() as connection:
        for table, values in rows.items():
            if values:
                connection.execute(insert(table), values)


def _row(run: Made) -> dict[str, Any]:
    return {
        "run_uuid": run.run_id,
        "name": run.name,
        "source_type": "LOCAL",
        "source_name": "",
        "entry_point_name": "",
        "user_id": "bench",
        "status": "FINISHED",
        "start_time": run.start_time,
        "end_time": run.start_time + 900,
        "deleted_time": None,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": f"mlflow-artifacts:/{run.experiment_id}/{run.run_id}/artifacts",
        "experiment_id": int(run.experiment_id),
    }


def _entry(run: Made, key: str, value: object) -> dict[str, Any]:
    return {"key": key, "value": value, "run_uuid": run.run_id}


def settle(store: Any) -> None:
    """Let the store do what it would have done by the time that somebody searches: refresh, gather statistics."""
    if hasattr(store, "docs"):
        from mlflow_elasticsearch_tracking.indices import RUNS

        store.docs.refresh(RUNS)
    elif store.engine.dialect.name == "postgresql":
        from sqlalchemy import text

        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


# Measuring.


def operations(store: Any, experiment_id: str, total: int) -> dict[str, Search]:
    """What is measured in an experiment of `total` runs; each returns how many runs it found."""

    def search(filter_string: str = "", order_by: Sequence[str] = (), size: int = 100, token: Any = None) -> Search:
        def run() -> int:
            found = store._search_runs(
                [experiment_id], filter_string, ViewType.ACTIVE_ONLY, size, list(order_by), token
            )
            return len(found[0])

        return run

    asked: dict[str, Search] = {
        "first page of 1,000": search(size=1_000),
        "first page of 100": search(),
        "first page of 25": search(size=25),
        "metrics.m1 > 0.9 and params.p1 = 'v1'": search("metrics.m1 > 0.9 and params.p1 = 'v1'"),
        "3 metrics and 2 params": search(
            "metrics.m1 > 0.5 and metrics.m2 > 0.5 and metrics.m3 < 0.5 and params.p1 = 'v1' and params.p2 != 'x'"
        ),
        "metrics.m1 > 0.1, 25": search("metrics.m1 > 0.1", size=25),
        "a tag's unique value": search(f"tags.t0 = 'uid-{total // 2}'"),
        "a param's unique value": search(f"params.p0 = '{total // 2}'"),
        "a run's name": search(f"attributes.run_name = 'run-{total // 2}'"),
        "tag LIKE '%-42-%'": search("tags.t1 LIKE '%-42-%'"),
        "tag LIKE on unique values": search("tags.t0 LIKE '%-42%7'"),
        "tag ILIKE on unique values": search("tags.t0 ILIKE '%D-42%7'"),
        "tag IS NOT NULL, 25": search("tags.t0 IS NOT NULL", size=25),
        "order by a metric, 100": search(order_by=["metrics.m1 DESC"]),
        "order by a metric, top 1": search(order_by=["metrics.m1 DESC"], size=1),
        "order by a param, 100": search(order_by=["params.p2"]),
        "page of 20 behind 980 runs": search(size=20, token=_token(store, experiment_id, 980)),
    }
    if total >= 10_000:
        deep = total - 1_000
        asked[f"page of 100 behind {deep:,} runs"] = search(token=_token(store, experiment_id, deep))
    return asked


def _token(store: Any, experiment_id: str, offset: int) -> Any:
    """The token of the page that begins behind so many runs."""
    token = None
    for start in range(0, offset, 10_000):
        size = min(10_000, offset - start)
        if not hasattr(store, "docs"):
            from mlflow.utils.search_utils import SearchUtils

            return SearchUtils.create_page_token(offset)
        _, token = store._search_runs([experiment_id], "", ViewType.ACTIVE_ONLY, size, [], token)
    return token


def tables(stores: Mapping[str, Any], sizes: Sequence[int], rounds: int, reference: str = REFERENCE) -> Iterator[Table]:
    """A table for each size. The stores are empty, and are filled as far as it goes."""
    experiments = {name: store.create_experiment("one of many runs") for name, store in stores.items()}
    filled = 0
    for size in sorted(sizes):
        for name, store in stores.items():
            fill(store, (made(number, experiments[name]) for number in range(filled, size)))
            settle(store)
        filled = size
        asked = {name: operations(store, experiments[name], size) for name, store in stores.items()}
        table = Table(f"Searches in an experiment of {size:,} runs", "ms", list(stores), reference)
        yield measured(table, asked, rounds)


def everywhere(stores: Mapping[str, Any], total: int, rounds: int, reference: str = REFERENCE) -> Table:
    """Searches over all experiments at once, of which there are tens of thousands."""
    table = Table(
        f"Searches in {total // RUNS_PER_EXPERIMENT:,} experiments with {total:,} runs", "ms", list(stores), reference
    )
    ids = [str(1_000 + number) for number in range(total // RUNS_PER_EXPERIMENT)]
    asked = {}
    for name, store in stores.items():
        if not hasattr(store, "docs"):
            _make_experiments(store, ids)
        fill(store, (small(number, ids[number // RUNS_PER_EXPERIMENT]) for number in range(total)))
        settle(store)
        asked[name] = {
            f"a tag, {label}": lambda store=store, chosen=chosen: len(
                store._search_runs(chosen, "tags.team = 'team-7'", ViewType.ACTIVE_ONLY, 100, [], None)[0]
            )
            for label, chosen in {"all experiments": ids, "every other experiment": ids[::2]}.items()
        }
    return measured(table, asked, rounds)


def _make_experiments(store: Any, ids: Sequence[str]) -> None:
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import insert

    rows = [{"experiment_id": int(one), "name": f"experiment {one}", "artifact_location": "x"} for one in ids]
    with store.engine.begin() as connection:
        connection.execute(insert(models.SqlExperiment), rows)


def measured(table: Table, asked: Mapping[str, Mapping[str, Search]], rounds: int) -> Table:
    """Sample every operation of every store in turn."""
    for operation in next(iter(asked.values())):
        found = {name: searches[operation]() for name, searches in asked.items()}
        if len(set(found.values())) > 1:
            sys.exit(f"{table.title}: {operation} found {found}")

        row = f"{operation} ({max(found.values())} found)"

        def sample(name: str, counts: bool, operation: str = operation, row: str = row) -> None:
            begin = time.perf_counter()
            asked[name][operation]()
            if counts:
                table.add(row, name, (time.perf_counter() - begin) * 1_000)

        interleave(rounds, list(asked), sample)
    return table


# A program itself.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--everywhere", type=int, default=0, help="small runs over many experiments, such as 1000000")
    parser.add_argument("--json", type=Path, help="write the samples to this file")
    options = parser.parse_args()
    results = []
    with stores() as (both, versions):
        print(versions)
        for table in tables(both, options.runs, options.rounds):
            print(f"\n{table.markdown()}", flush=True)
            results.append(table.plain())
        if options.everywhere:
            table = everywhere(both, options.everywhere, options.rounds)
            print(f"\n{table.markdown()}", flush=True)
            results.append(table.plain())
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
