"""How the tracking store could lay out runs and metrics in Elasticsearch: the candidates side by side, on one node.

    nox -s bench -- layouts [--runs 20000] [--rounds 15] [--json FILE]

Latest metrics, ten of each run, and what a search needs of them:

- "document per metric": one document per run and metric, with the number as a double.
- "tokens": keyword terms `key NUL sortable number` in the run's document.
- "flattened": a flattened field of sortable numbers in the run's document, searched and sorted.
- "points": numbers as 128-bit points, searched, and a flattened field without terms, sorted.

Metric history: a document per point, against columns, one document per key of a batch.

Changes of a run: read and compare-and-set, against compare-and-set on the state that was written last. A scripted
update is not measured: the node of jars that the tests use has no script engine.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from elastic import documents, node, prefix, settled
from tables import Table, interleave

from mlflow_elasticsearch_tracking.history_columns import METRICS, block_columns, blocks_of
from mlflow_elasticsearch_tracking.indices import FLATTENED, KEYWORD, LONG, POINTS, SORTED, TOKENS
from mlflow_elasticsearch_tracking.metric_history import ordered
from mlflow_plugkit_elasticsearch import Action, Documents, Index, bulk
from mlflow_plugkit_elasticsearch.encode import document_id, point, points, sortable_float, token
from mlflow_plugkit_elasticsearch.queries import all_of, between, term, terms

Query = dict[str, Any]
PER_METRIC, TOKEN, FLAT, POINT = "document per metric", "tokens", "flattened", "points"
DOC_PER_POINT, COLUMNS = "document per point", "columns"
KEYS = [f"m{number}" for number in range(10)]
_RUN = {"run_id": KEYWORD, "start_time": LONG, "param_tokens": TOKENS}
NEWEST = [{"start_time": "desc"}, {"run_id": "asc"}]


class Latest:
    """One layout of the latest metrics."""

    def __init__(self, docs: Documents, name: str) -> None:
        self.docs, self.name = docs, name
        fields = {
            PER_METRIC: {},
            TOKEN: {"metric_tokens": TOKENS},
            FLAT: {"metrics": FLATTENED},
            POINT: {"metrics": SORTED, "metric_points": POINTS},
        }[name]
        slug = name.replace(" ", "-")
        self.runs = Index(f"runs-{slug}", {**_RUN, **fields}, derived=("param_tokens", *fields))
        self.metrics = Index(f"latest-{slug}", {"run_id": KEYWORD, "key": KEYWORD, "value": {"type": "double"}})
        self.indices = (self.runs, self.metrics) if name == PER_METRIC else (self.runs,)

    def actions(self, run: Query) -> Iterator[Action]:
        """What writes a run."""
        yield Action("index", self.runs, run["run_id"], self._run(run))
        if self.name == PER_METRIC:
            yield from (self._metric(run["run_id"], key, value) for key, value in run["m"].items())

    def change(self, run: Query, values: dict[str, float]) -> None:
        """Log further values of a run."""
        if self.name == PER_METRIC:
            bulk(self.docs, [self._metric(run["run_id"], key, value) for key, value in values.items()])
            return
        self.docs.put(self.runs, run["run_id"], self._run({**run, "m": {**run["m"], **values}}))

    def filtered(self) -> int:
        """Runs by a metric and a param, the newest hundred."""
        queries = [term("param_tokens", token("p1", "v1"))]
        if self.name == PER_METRIC:
            above = all_of([term("key", "m1"), between("value", gt=0.9)])
            ids = [hit.source["run_id"] for hit in self.docs.scan(self.metrics, above, "run_id", source=["run_id"])]
            queries.append(terms("run_id", ids))
        elif self.name == TOKEN:
            queries.append(between("metric_tokens", gt=token("m1", sortable_float(0.9)), lt="m1\x01"))
        elif self.name == FLAT:
            queries.append(between("metrics.m1", gt=sortable_float(0.9), lte=sortable_float(float("inf"))))
        else:
            queries.append(between("metric_points", gt=point("m1", 0.9), lte=points("m1")[1]))
        return len(self.docs.page(self.runs, all_of(queries), NEWEST, 100))

    def sorted(self) -> int:
        """The hundred runs with the highest value of a metric."""
        if self.name == PER_METRIC:
            order = [{"value": "desc"}, {"run_id": "asc"}]
            hits = self.docs.page(self.metrics, term("key", "m1"), order, 100, source=["run_id"])
            return len(self.docs.get_many(self.runs, [hit.source["run_id"] for hit in hits]))
        column = {"order": "desc", "missing": "_last", "unmapped_type": "keyword"}
        return len(self.docs.page(self.runs, {"match_all": {}}, [{"metrics.m1": column}, {"run_id": "asc"}], 100))

    def _metric(self, run_id: str, key: str, value: float) -> Action:
        source = {"run_id": run_id, "key": key, "value": value}
        return Action("index", self.metrics, document_id(run_id, key), source)

    def _run(self, run: Query) -> Query:
        source = {**run, "param_tokens": [token(key, value) for key, value in run["p"].items()]}
        if self.name == TOKEN:
            source["metric_tokens"] = [token(key, sortable_float(value)) for key, value in run["m"].items()]
        elif self.name != PER_METRIC:
            source["metrics"] = {key: sortable_float(value) for key, value in run["m"].items()}
        if self.name == POINT:
            source["metric_points"] = [point(key, value) for key, value in run["m"].items()]
        return source


class History:
    """One layout of the metric history; each batch has 1,000 points of ten keys."""

    def __init__(self, docs: Documents, name: str) -> None:
        self.docs, self.name = docs, name
        point_fields = {"series": KEYWORD, "step": LONG, "timestamp": LONG, "id": KEYWORD}
        self.index = METRICS if name == COLUMNS else Index("points", point_fields)
        self._batches = 0

    def log(self) -> None:
        """One batch of the run "log"."""
        self.write("log", _batch(self._batches, KEYS, 100))
        self._batches += 1

    def write(self, run_id: str, batch: Sequence[tuple[str, int, int, float]]) -> None:
        """Write points of a run."""
        bulk(self.docs, list(self._actions(run_id, batch)))

    def read(self, run_ids: Sequence[str], key: str = "m1") -> int:
        """All points of a key of some runs in the order of time; how many."""
        query = terms("series", [token(run_id, key) for run_id in run_ids])
        if self.name == COLUMNS:
            parts: dict[str, list[Any]] = {}
            for hit in self.docs.page(self.index, query, [{"id": "asc"}], 1_000_000):
                parts.setdefault(hit.source["run_id"], []).extend(block_columns(hit.source, key))
            return sum(len(ordered(part, by_time=True)) for part in parts.values())
        order = [{"series": "asc"}, {"timestamp": "asc"}, {"step": "asc"}, {"id": "asc"}]
        hits = self.docs.page(self.index, query, order, 1_000_000, source=["step", "timestamp", "value"])
        return len([(hit.source["timestamp"], hit.source["step"], hit.source["value"]) for hit in hits])

    def _actions(self, run_id: str, batch: Sequence[tuple[str, int, int, float]]) -> Iterable[Action]:
        if self.name == COLUMNS:
            for number, block in enumerate(blocks_of(batch)):
                doc_id = f"{run_id}-{batch[0][1]}-{number}"
                series = [token(run_id, key) for key in block["k"][::2]]
                yield Action("index", METRICS, doc_id, {**block, "id": doc_id, "run_id": run_id, "series": series})
            return
        for key, step, at, value in batch:
            doc_id = document_id(run_id, key, str(step), str(at), repr(value))
            source = {"series": token(run_id, key), "step": step, "timestamp": at, "value": value, "id": doc_id}
            yield Action("index", self.index, doc_id, source)


def _batch(number: int, keys: Sequence[str], steps: int) -> list[tuple[str, int, int, float]]:
    first = number * steps
    return [
        (key, step, 1_700_000_000_000 + step * 137, random.random())
        for step in range(first, first + steps)
        for key in keys
    ]


def runs_of(count: int) -> list[Query]:
    """Runs with ten metrics and ten params each."""
    return [
        {
            "run_id": f"{number:032x}",
            "start_time": 1_700_000_000_000 + number,
            "m": {key: random.random() for key in KEYS},
            "p": {f"p{place}": f"v{(number >> place) % 10}" for place in range(10)},
        }
        for number in range(count)
    ]


def timed(table: Table, row: str, column: str, operation: Callable[[], Any], counts: bool = True) -> Any:
    """One sample in milliseconds."""
    start = time.perf_counter()
    result = operation()
    if counts:
        table.add(row, column, (time.perf_counter() - start) * 1e3)
    return result


def latest_metrics(docs: Documents, count: int, rounds: int) -> Iterator[Table]:
    """Tables of the latest metrics."""
    table = Table(f"Latest metrics of {count:,} runs", "ms", (PER_METRIC, TOKEN, FLAT, POINT), FLAT)
    weight = Table("The same: size on disk", "MB", table.columns, FLAT)
    layouts = {name: Latest(docs, name) for name in table.columns}
    runs = runs_of(count)
    for name, layout in layouts.items():
        for start in range(0, count, 5_000):
            actions = [action for run in runs[start : start + 5_000] for action in layout.actions(run)]
            timed(table, "write 5,000 runs", name, lambda actions=actions: bulk(docs, actions))  # type: ignore[misc]
        weight.add("size", name, settled(docs, *layout.indices))

    def sample(name: str, counts: bool) -> None:
        layout, run = layouts[name], random.choice(runs)
        found = timed(table, "metrics.m1 > 0.9 and params.p1 = 'v1', newest 100", name, layout.filtered, counts)
        assert found, "the filter found nothing"
        if name != TOKEN:
            timed(table, "order by metrics.m1, first 100", name, layout.sorted, counts)
        value = {"m1": random.random()}
        timed(table, "one metric of a run changes", name, lambda: layout.change(run, value), counts)
        wide = {f"k{number}": random.random() for number in range(1_000)}
        timed(table, "1,000 metrics of a run change", name, lambda: layout.change(run, wide), counts)

    interleave(rounds, table.columns, lambda name, counts: sample(name, counts))
    yield table
    yield weight


def history(docs: Documents, rounds: int) -> Iterator[Table]:
    """Tables of the metric history."""
    table = Table("Metric history", "ms", (DOC_PER_POINT, COLUMNS), DOC_PER_POINT)
    weight = Table("The same: size on disk of 200,000 points", "MB", table.columns, DOC_PER_POINT)
    layouts = {name: History(docs, name) for name in table.columns}
    hundred = [f"r{number}" for number in range(100)]
    for name, layout in layouts.items():
        for number in range(100):
            layout.write("long", _batch(number, ["m1"], 1_000))
            layout.write(hundred[number], _batch(0, ["m1"], 1_000))
        weight.add("size", name, settled(docs, layout.index))

    def sample(name: str, counts: bool) -> None:
        layout = layouts[name]
        timed(table, "write 1,000 points of 10 keys", name, layout.log, counts)
        found = timed(table, "read 100,000 points of one run", name, lambda: layout.read(["long"]), counts)
        many = timed(table, "read 1,000 points of each of 100 runs", name, lambda: layout.read(hundred), counts)
        assert found == many == 100_000, (found, many)

    interleave(rounds, table.columns, lambda name, counts: sample(name, counts))
    yield table
    yield weight


def changes(docs: Documents, rounds: int) -> Table:
    """A table of the ways to change a run."""
    read, remembered = "read, compare-and-set", "compare-and-set on the state written last"
    table = Table("A metric of a run with 10 metrics and 10 params changes", "ms", (read, remembered), read)
    layout = Latest(docs, POINT)
    run = runs_of(1)[0]
    state = [docs.put(layout.runs, "changed", layout._run(run))]

    def sample(name: str, counts: bool) -> None:
        def change() -> None:
            known = docs.get(layout.runs, "changed") if name == read else state[0]
            state[0] = docs.put(layout.runs, "changed", layout._run(run), known)

        for _ in range(10):
            timed(table, "one change", name, change, counts)

    interleave(rounds, table.columns, lambda name, counts: sample(name, counts))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random.seed(4)
    with node() as (url, version), prefix(url) as uri:
        docs = documents(uri)
        print(f"Elasticsearch {version}\n")
        tables = [*latest_metrics(docs, options.runs, options.rounds)]
        tables += [*history(docs, options.rounds), changes(docs, options.rounds)]
    for table in tables:
        print(table.markdown() + "\n")
    if options.json:
        options.json.write_text(json.dumps([table.plain() for table in tables], indent=1) + "\n")


if __name__ == "__main__":
    main()
