"""The model registry on Elasticsearch beside MLflow's SqlAlchemyStore on PostgreSQL, in turn, in one process.

    nox -s bench -- registry [--models 300] [--rounds 15] [--json FILE]

Each model has three versions with a tag each. Both stores are used as MLflow's server uses them, without HTTP in
front. Shown are medians in milliseconds and, in brackets, how many times faster than PostgreSQL. Both servers write
each change to the disk before they answer.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from elastic import node, prefix
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from tables import Table, interleave
from tracking_stores import OURS, POSTGRESQL, REFERENCE

COLUMNS = (REFERENCE, OURS)
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "create_model_version": lambda s: s.create_model_version("m0002", "s3://b/x"),
    "get_model_version": lambda s: s.get_model_version("m0003", 2),
    "get_model_version_by_alias": lambda s: s.get_model_version_by_alias("m0001", "best"),
    "get_registered_model of 200 versions": lambda s: s.get_registered_model("big"),
    "set_model_version_tag": lambda s: s.set_model_version_tag("m0004", 1, ModelVersionTag("a", "b")),
    "transition_model_version_stage": lambda s: s.transition_model_version_stage("m0005", 1, "Staging", True),
    "rename_registered_model, 3 versions, and back": lambda s: (
        s.rename_registered_model("m0006", "x"),
        s.rename_registered_model("x", "m0006"),
    ),
    "a page of 100 models": lambda s: s.search_registered_models(max_results=100),
    "models by a tag": lambda s: s.search_registered_models("tags.team = 't3'"),
    "models by name LIKE '%42%'": lambda s: s.search_registered_models("name LIKE '%42%'"),
    "a page of 1,000 versions": lambda s: s.search_model_versions(max_results=1000),
    "versions by run_id": lambda s: s.search_model_versions("run_id = 'run7'"),
}


@contextmanager
def stores() -> Iterator[tuple[dict[str, Any], str]]:
    """The registries by name, both empty; and what they run on."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

    sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "mlflow-sqlserver-artifacts" / "tests"))
    import servers  # type: ignore[import-not-found] # beside the tests of another package

    with servers.postgresql(*POSTGRESQL) as server, node() as (url, version), prefix(url) as uri:
        login = f"{server.user}:{quote(servers.PASSWORD, safe='')}"
        sql = SqlAlchemyStore(f"{server.driver}://{login}@127.0.0.1:{server.port}/postgres")
        yield {REFERENCE: sql, OURS: ElasticsearchRegistryStore(uri)}, f"PostgreSQL 15, Elasticsearch {version}"
        sql.engine.dispose()


def fill(store: Any, models: int) -> None:
    """So many models with three versions each, by eight threads."""

    def one(number: int) -> None:
        name = f"m{number:04}"
        store.create_registered_model(name, [RegisteredModelTag("team", f"t{number % 10}")])
        for place in range(3):
            tags = [ModelVersionTag("k", f"v{place}")]
            store.create_model_version(name, f"s3://b/{number}/{place}", f"run{number}", tags)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(models)))
    store.create_registered_model("big")
    store.set_registered_model_alias("m0001", "best", 2)


def crowded(store: Any) -> float:
    """Seconds in which eight threads create 25 versions of one model each."""
    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [store.create_model_version("big", "s3://b/x") for _ in range(25)], range(8)))
    return time.perf_counter() - start


def measured(both: dict[str, Any], models: int, rounds: int) -> Table:
    """Every operation on both stores, in turn."""
    title = f"{models:,} models of three versions: medians of {rounds} rounds"
    table = Table(title, "ms", COLUMNS, REFERENCE)
    for name in COLUMNS:
        fill(both[name], models)
        table.add("200 versions of one model by 8 threads, each", name, crowded(both[name]) * 1_000 / 200)
    for row, operation in OPERATIONS.items():

        def sample(name: str, counts: bool, row: str = row, operation: Callable[[Any], Any] = operation) -> None:
            start = time.perf_counter()
            operation(both[name])
            if counts:
                table.add(row, name, (time.perf_counter() - start) * 1_000)

        interleave(rounds, COLUMNS, sample)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the samples to this file")
    options = parser.parse_args()
    for name in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with stores() as (both, versions):
        print(versions, flush=True)
        table = measured(both, options.models, options.rounds)
    print(f"\n{table.markdown()}")
    if options.json:
        options.json.write_text(json.dumps(table.plain(), indent=1) + "\n")


if __name__ == "__main__":
    main()
