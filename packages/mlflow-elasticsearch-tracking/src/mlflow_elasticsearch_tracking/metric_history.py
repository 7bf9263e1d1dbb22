"""Reading histories: the points of some runs and one key, from the runs' tails and the history index together."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import eq, lt
from typing import Any

from mlflow.entities.metric import Metric, MetricWithRunId

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.history_columns import METRICS, Columns, Tail, block_columns
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_plugkit_elasticsearch import Documents
from mlflow_plugkit_elasticsearch.encode import token
from mlflow_plugkit_elasticsearch.queries import Query, all_of, between, terms

#: A copy so young may not be shown to searches yet: indices are refreshed once a second, and clocks differ.
_YOUNG_MS = 60_000
_BLOCKS_AT_ONCE = 512
#: A point without its key, as MLflow's SQL store orders it: two integers and a value; where there is a NaN among
#: the points its value is 0, and a flag at the end says so.
Row = tuple[Any, ...]
Bounds = tuple[int, int] | None


class Histories:
    """The histories of one key in some runs.

    Args:
        docs: where to read.
        run_ids: the runs; those that are not there have no points.
        key: the metric.
    """

    def __init__(self, docs: Documents, run_ids: Sequence[str], key: str) -> None:
        self._docs, self._key = docs, key
        found = docs.get_many(RUNS, list(dict.fromkeys(run_ids)), source=["tail"])
        tails = {run_id: Tail.of(document.source) for run_id, document in found.items()}
        self._tails = {run_id: list(tail.columns(key)) for run_id, tail in tails.items()}
        copied_at = [tail.copied_at for tail in tails.values() if tail.copied_at]
        self._series = [token(run_id, key) for run_id, tail in tails.items() if tail.copied_at]
        if copied_at and now_ms() - max(copied_at) < _YOUNG_MS:
            docs.refresh(METRICS, always=True)

    def columns(self, steps: Bounds = None) -> dict[str, list[Columns]]:
        """All points of each run, in no order, with repetitions.

        Args:
            steps: what has no step within these bounds may be left out.
        """
        found = {run_id: list(columns) for run_id, columns in self._tails.items()}
        query = [] if steps is None else [between("a", lte=steps[1]), between("b", gte=steps[0])]
        for block in self._blocks(query, [{"id": "asc"}]):
            found[block["run_id"]] += block_columns(block, self._key)
        return found

    def by_time(self, run_id: str, most: int | None, after: Row | None) -> list[Row]:
        """The points of one run by (timestamp, step, value) behind `after`; `most`, if there are so many, or more."""
        parts = list(self._tails.get(run_id, ()))
        count = sum(len(part.steps) for part in parts)
        worth_a_look = math.inf if most is None else most + 1
        query = [] if after is None else [between("d", gte=after[0])]
        for block in self._blocks(query, [{"c": "asc"}, {"id": "asc"}]):
            if most is not None and count >= worth_a_look:
                rows = _behind(ordered(parts, by_time=True), after)
                # What follows is not older than this block, so that all points before it are there.
                if len(rows) > most and rows[most][0] < block["c"]:
                    return rows[: most + 1]
                worth_a_look = 2 * count
            columns = list(block_columns(block, self._key))
            parts += columns
            count += sum(len(part.steps) for part in columns)
        return _behind(ordered(parts, by_time=True), after)

    def _blocks(self, query: Sequence[Query], sort: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        if not self._series:
            return
        wanted = all_of([terms("series", self._series), *query])
        after: list[Any] | None = None
        while True:
            hits = self._docs.page(METRICS, wanted, sort, _BLOCKS_AT_ONCE, after=after, fresh=after is None)
            for hit in hits:
                yield hit.source
            if len(hits) < _BLOCKS_AT_ONCE:
                return
            after = hits[-1].sort


def ordered(parts: Sequence[Columns], *, by_time: bool) -> list[Row]:
    """The points of some columns, each once, by (timestamp, step, value) or by (step, timestamp, value)."""
    steps, timestamps, values = (
        (list(chain.from_iterable(column)) for column in zip(*parts, strict=True)) if parts else ([], [], [])
    )
    first, second = (timestamps, steps) if by_time else (steps, timestamps)
    rows: list[Row]
    if math.isnan(sum(values)):
        rows = [(a, b, 0.0 if v != v else v, v != v) for a, b, v in zip(first, second, values, strict=True)]
    else:
        rows = list(zip(first, second, values, strict=True))
    rows.sort()
    if any(map(eq, rows, rows[1:])):
        rows = [row for row, _ in groupby(rows)]
    return rows


def value_of(row: Row) -> float:
    """The value of a point."""
    return math.nan if row[-1] is True else float(row[2])


def sample(parts: Sequence[Columns], most: int, steps: Bounds) -> Iterator[tuple[int, int, float]]:
    """At most `most` points by (step, timestamp, value), evenly spaced by their number, the last one among them.

    As MLflow's SQL store samples: the first of each of `most` equal parts (SQL's NTILE), the last point in place of
    the last of them. Points that lie in the order of their steps, as most do, are sampled by their places alone.
    """
    parts = sorted((part for part in parts if len(part.steps)), key=lambda part: part.steps[0])
    parts = [part for number, part in enumerate(parts) if not number or part != parts[number - 1]]
    columns = parts[0] if len(parts) == 1 else [list(chain.from_iterable(each)) for each in zip(*parts, strict=True)]
    if not columns:
        return iter(())
    column = columns[0]
    if all(map(lt, column, column[1:])):
        first, last = (0, len(column)) if steps is None else _places(column, steps)
        return zip(*(_spread(each[first:last], most) for each in columns), strict=True)
    rows = ordered(parts, by_time=False)
    if steps is not None:
        rows = [row for row in rows if steps[0] <= row[0] <= steps[1]]
    return ((row[0], row[1], value_of(row)) for row in _spread(rows, most))


def _places(column: Sequence[int], steps: tuple[int, int]) -> tuple[int, int]:
    return bisect_left(column, steps[0]), bisect_right(column, steps[1])


def _spread(column: Sequence[Any], most: int) -> Sequence[Any]:
    if len(column) <= most:
        return column
    size, larger = divmod(len(column), most)
    edge = larger * (size + 1)
    return [*[*column[: edge : size + 1], *column[edge::size]][: most - 1], column[-1]]


def _behind(rows: list[Row], after: Row | None) -> list[Row]:
    return rows if after is None else [row for row in rows if row > after]


def with_run_id(key: str, run_id: str, rows: Iterable[tuple[int, int, float]]) -> list[MetricWithRunId]:
    """Points (step, timestamp, value) as entities, without the `Metric` that their constructor takes apart again."""
    metrics = []
    for step, timestamp, value in rows:
        metric = MetricWithRunId.__new__(MetricWithRunId)
        Metric.__init__(metric, key, value, timestamp, step)
        metric._run_id = run_id
        metrics.append(metric)
    return metrics
