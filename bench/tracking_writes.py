"""Writing to tracking stores, by one thread and by many, and reading metric histories: parts of `bench_tracking.py`."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mlflow.entities import Metric, Param, RunTag
from tables import Table, interleave

START = 1_700_000_000_000
TERMINATED = 3
#: Rounds that are not counted: a node that has just started still compiles its own code.
WARM_UP = 15
_numbers = itertools.count(1)


class Operation(NamedTuple):
    """What is measured; `prepare`, which is not, makes its argument."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None
    repeated: int = 1


def metrics(keys: int, steps: int) -> list[Metric]:
    """Points that no call logged before: so many keys at so many steps."""
    first = next(_numbers) * steps
    return [
        Metric(f"k{key}", random.random(), START + step * 100, step)
        for step in range(first, first + steps)
        for key in range(keys)
    ]


def writing(store: Any) -> dict[str, Operation]:
    """The operations on one store."""
    experiment_id = store.create_experiment(f"writes {next(_numbers)}")

    def run(**kwargs: Any) -> str:
        return str(store.create_run(experiment_id, "bench", START, kwargs.get("tags", []), None).info.run_id)

    shared, wide = run(), run()
    store.log_batch(wide, metrics(1_000, 1), [], [])
    small = run()
    store.log_batch(small, metrics(10, 1), *texts(10))
    return {
        "create_run": Operation(lambda _: run(), repeated=8),
        "get_run": Operation(lambda _: store.get_run(small), repeated=8),
        "log_metric": Operation(lambda m: store.log_metric(shared, m), lambda: metrics(1, 1)[0], 8),
        "log_param": Operation(lambda p: store.log_param(shared, p), lambda: Param(f"p{next(_numbers)}", "v"), 8),
        "set_tag": Operation(lambda t: store.set_tag(shared, t), lambda: RunTag("t", str(next(_numbers))), 8),
        "update_run_info, ends the run": Operation(lambda r: store.update_run_info(r, TERMINATED, START, None), run, 4),
        "log_batch, 1,000 metrics: 10 keys x 100 steps": Operation(
            lambda m: store.log_batch(shared, m, [], []), lambda: metrics(10, 100)
        ),
        "log_batch, 1,000 metrics: 10 keys x 100 steps, a new run": Operation(
            lambda a: store.log_batch(a[0], a[1], [], []), lambda: (run(), metrics(10, 100))
        ),
        "log_batch, 1,000 metrics: 1,000 new keys": Operation(
            lambda a: store.log_batch(a[0], a[1], [], []), lambda: (run(), metrics(1_000, 1))
        ),
        "log_batch, 1,000 metrics: 1,000 known keys": Operation(
            lambda m: store.log_batch(wide, m, [], []), lambda: metrics(1_000, 1)
        ),
        "log_batch, 100 params and 100 tags": Operation(
            lambda a: store.log_batch(a[0], [], *a[1]), lambda: (run(), texts(100))
        ),
        "log_batch, 10 metrics, params and tags": Operation(
            lambda a: store.log_batch(a[0], a[1], *a[2]), lambda: (run(), metrics(10, 1), texts(10)), 4
        ),
        "get_run with 1,000 metrics": Operation(lambda _: store.get_run(wide)),
    }


def texts(count: int) -> tuple[list[Param], list[RunTag]]:
    """So many params and tags."""
    return (
        [Param(f"p{number}", f"value {number}") for number in range(count)],
        [RunTag(f"t{number}", f"value {number}") for number in range(count)],
    )


def writes(stores: Mapping[str, Any], rounds: int) -> Table:
    """Single calls by one thread."""
    warm, table = (Table("Writes", "ms", list(stores), next(iter(stores))) for _ in range(2))
    operations = {name: writing(store) for name, store in stores.items()}
    measure(warm, operations, WARM_UP)
    measure(table, operations, rounds)
    return table


def measure(table: Table, asked: Mapping[str, Mapping[str, Operation]], rounds: int) -> None:
    """Sample each operation of each store in turn."""
    for row in next(iter(asked.values())):

        def sample(name: str, counts: bool, row: str = row) -> None:
            operation = asked[name][row]
            for _ in range(operation.repeated):
                given = operation.prepare()
                begin = time.perf_counter()
                operation.run(given)
                if counts:
                    table.add(row, name, (time.perf_counter() - begin) * 1e3)

        interleave(rounds, table.columns, sample)


def threads(stores: Mapping[str, Any], rounds: int, batches: int = 20) -> Iterator[Table]:
    """Eight threads against one: `batches` calls of log_batch with 100 points each, on own runs and on one run."""
    reference = next(iter(stores))
    table = Table(
        f"{8 * batches} calls of log_batch with 100 points: 10 keys x 10 steps", "ms", list(stores), reference
    )
    experiments = {name: store.create_experiment(f"threads {next(_numbers)}") for name, store in stores.items()}

    def sample(name: str, counts: bool) -> None:
        for row, count, runs in (
            ("1 thread", 1, 1),
            ("8 threads, a run each", 8, 8),
            ("8 threads, one run", 8, 1),
        ):
            ids = [_new_run(stores[name], experiments[name]) for _ in range(runs)]
            seconds, failures = together(stores[name], ids, count, 8 * batches // count)
            assert not failures, failures[0]
            if counts:
                table.add(row, name, seconds * 1e3)

    interleave(rounds, list(stores), sample)
    yield table


def crowds(stores: Mapping[str, Any], count: int = 40, batches: Sequence[int] = (4, 40)) -> Table:
    """How many calls of forty threads fail; MLflow's own store may wait half a minute in one and gets the first row."""
    table = Table(
        f"{count} threads that log batches of 100 points to a run each: calls that failed", "calls", list(stores)
    )
    for row in batches:
        for name, store in stores.items():
            if row == batches[0] or name != table.columns[0]:
                experiment_id = store.create_experiment(f"crowd {next(_numbers)}")
                ids = [_new_run(store, experiment_id) for _ in range(count)]
                seconds, failures = together(store, ids, count, row)
                table.add(f"{row} calls each", name, len(failures))
                print(f"{name}: {count} x {row} calls in {seconds:.1f} s, {len(failures)} failed", flush=True)
    return table


def _new_run(store: Any, experiment_id: str) -> str:
    return str(store.create_run(experiment_id, "bench", START, [], None).info.run_id)


def together(store: Any, run_ids: Sequence[str], count: int, batches: int) -> tuple[float, list[Exception]]:
    """Seconds until all threads have logged their batches, and what failed."""
    data = [[metrics(10, 10) for _ in range(batches)] for _ in range(count)]

    def work(number: int) -> list[Exception]:
        failures: list[Exception] = []
        for batch in data[number]:
            try:
                store.log_batch(run_ids[number % len(run_ids)], batch, [], [])
            except Exception as exc:  # noqa: BLE001 # counted
                failures.append(exc)
        return failures

    begin = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        failures = [failure for found in pool.map(work, range(count)) for failure in found]
    return time.perf_counter() - begin, failures


def histories(stores: Mapping[str, Any], rounds: int, points: int = 100_000) -> Table:
    """Reading metric histories that were logged in batches of 1,000 points."""
    table = Table("Metric histories", "ms", list(stores), next(iter(stores)))
    asked = {name: _reading(store, points) for name, store in stores.items()}
    first, *others = asked.values()
    for row in first:
        found = {len(each[row].run(None)) for each in (first, *others)}
        assert len(found) == 1, f"{row}: the stores found {found} points"
    measure(table, asked, rounds)
    return table


def _reading(store: Any, points: int) -> dict[str, Operation]:
    experiment_id = store.create_experiment(f"histories {next(_numbers)}")
    long, *runs = (_new_run(store, experiment_id) for _ in range(101))
    for first in range(0, points, 1_000):
        store.log_batch(long, _points(first), [], [])
    for run_id in runs:
        store.log_batch(run_id, _points(0), [], [])
        store.update_run_info(run_id, TERMINATED, START, None)
    sampled = store.get_metric_history_bulk_interval
    return {
        f"get_metric_history of {points:,} points": Operation(lambda _: store.get_metric_history(long, "loss")),
        "get_metric_history, the first page of 25,000": Operation(
            lambda _: store.get_metric_history(long, "loss", max_results=25_000)
        ),
        f"320 of {points:,} points": Operation(lambda _: sampled([long], "loss", 320, None, None)),
        "320 of 1,000 points of each of 10 runs": Operation(lambda _: sampled(runs[:10], "loss", 320, None, None)),
        "320 of 1,000 points of each of 100 runs": Operation(lambda _: sampled(runs, "loss", 320, None, None)),
    }


def _points(first: int) -> list[Metric]:
    return [Metric("loss", random.random(), START + step * 100, step) for step in range(first, first + 1_000)]
