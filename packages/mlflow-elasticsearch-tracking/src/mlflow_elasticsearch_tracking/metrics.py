"""Metrics: points, their history, samples of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mlflow.entities import Metric
from mlflow.store.entities.paged_list import PagedList

from mlflow_elasticsearch_tracking.base import StoreBase
from mlflow_elasticsearch_tracking.metric_history import Histories, Row, ordered, sample, value_of, with_run_id
from mlflow_elasticsearch_tracking.run_documents import json_number, number
from mlflow_plugkit.collector import collector_paused
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token

if TYPE_CHECKING:
    from mlflow.entities.metric import MetricWithRunId


class Metrics(StoreBase):
    """Metric history."""

    def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Metric]:
        """All points of a metric of a run by (timestamp, step, value), or a page of them; none for an unknown run.

        Args:
            run_id: the run.
            metric_key: the metric.
            max_results: most points of this page.
            page_token: from the page before.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad token.
        """
        after = _after(decode_token(page_token, run_id, metric_key))
        rows = Histories(self.docs, [run_id], metric_key).by_time(run_id, max_results, after)
        token = None
        if max_results is not None and len(rows) > max_results:
            rows = rows[:max_results]
            token = _token(rows[-1] if rows else after, run_id, metric_key)
        with collector_paused():
            return PagedList([Metric(metric_key, value_of(row), row[0], row[1]) for row in rows], token)

    def get_metric_history_bulk(
        self, run_ids: Sequence[str], metric_key: str, max_results: int | None
    ) -> list[MetricWithRunId]:
        """The points of a metric of some runs by (run id, timestamp, step, value), the first `max_results` of them."""
        found: list[MetricWithRunId] = []
        columns = Histories(self.docs, run_ids, metric_key).columns()
        with collector_paused():
            for run_id in sorted(columns):
                left = None if max_results is None else max_results - len(found)
                rows = ordered(columns[run_id], by_time=True)[:left]
                found += with_run_id(metric_key, run_id, ((row[1], row[0], value_of(row)) for row in rows))
        return found

    def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: Collection[int], max_results: int
    ) -> list[MetricWithRunId]:
        """The points of a metric of a run at some steps by (step, timestamp, value), the first `max_results`."""
        if not steps:
            return []
        wanted = set(steps)
        columns = Histories(self.docs, [run_id], metric_key).columns((min(wanted), max(wanted)))
        rows = [row for row in ordered(columns.get(run_id, ()), by_time=False) if row[0] in wanted]
        return with_run_id(metric_key, run_id, ((row[0], row[1], value_of(row)) for row in rows[:max_results]))

    def get_metric_history_bulk_interval(
        self,
        run_ids: list[str],
        metric_key: str,
        max_results: int,
        start_step: int | None,
        end_step: int | None,
    ) -> list[MetricWithRunId]:
        """At most `max_results` points of each run, evenly sampled by their order, the last one among them.

        Args:
            run_ids: the runs.
            metric_key: the metric.
            max_results: most points of one run; below 1 counts as 1.
            start_step: the lowest step, together with `end_step`; None for all.
            end_step: the highest step.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` where one of the two steps is missing.
        """
        if (start_step is None) != (end_step is None):
            raise mlflow_error("Give both start_step and end_step, or neither.")
        bounds = None if start_step is None or end_step is None else (start_step, end_step)
        columns = Histories(self.docs, run_ids, metric_key).columns(bounds)
        with collector_paused():
            found: list[MetricWithRunId] = []
            for run_id in run_ids:
                found += with_run_id(metric_key, run_id, sample(columns.get(run_id, ()), max(1, max_results), bounds))
            return found

    def get_max_step_for_metric(self, run_id: str, metric_key: str) -> int:
        """The highest step of a metric of a run; 0 where it has no points."""
        columns = Histories(self.docs, [run_id], metric_key).columns().get(run_id, ())
        return max((max(part.steps) for part in columns if len(part.steps)), default=0)


def _token(row: Row | None, *asked: str) -> str | None:
    return None if row is None else encode_token([row[0], row[1], json_number(row[2]), row[-1] is True], *asked)


def _after(token: list[object] | None) -> Row | None:
    if token is None:
        return None
    timestamp, step, value, is_nan = token
    assert isinstance(value, str | int | float)
    return timestamp, step, number(value), is_nan
