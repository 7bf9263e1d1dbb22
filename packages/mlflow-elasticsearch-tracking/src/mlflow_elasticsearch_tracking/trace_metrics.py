"""Figures over traces, spans and assessments: counted and summed up in Elasticsearch, exact, percentiles included.

Percentiles come from the distinct values and how often each occurs, not from Elasticsearch's estimate. Assessments are
few and lie in their traces' documents: they are counted here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow.store.entities.paged_list import PagedList
from mlflow.utils import search_utils

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.assessment_documents import aggregate
from mlflow_elasticsearch_tracking.indices_traces import SPANS, TRACES
from mlflow_elasticsearch_tracking.metric_groups import TIME_BUCKET, Group, GroupKey, data_points
from mlflow_elasticsearch_tracking.metric_rules import DIMENSIONS, Metric, checked
from mlflow_elasticsearch_tracking.trace_base import TraceBase, experiment_number
from mlflow_elasticsearch_tracking.trace_clauses import value_clause
from mlflow_elasticsearch_tracking.trace_filters import columns_query
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import bounded
from mlflow_plugkit_elasticsearch.queries import Query, all_of, any_of, between, exists, term, terms
from mlflow_plugkit_elasticsearch.schema import Index

MOST_POINTS = 1_000
#: Buckets of one answer: Elasticsearch's `search.max_buckets` is 65,536.
GROUPS = 60_000
#: Groups of one answer; distinct values of a group in it.
STEP, VALUES = 10_000, 5_000
VALUE = "value"
#: Traces that one search for spans names.
TRACES_AT_ONCE = 10_000
_INT64 = 2**63
_SPAN_TIMES = ("input_cost", "output_cost", "total_cost")


@dataclass
class Asked:
    """One question.

    Attributes:
        view: TRACES, SPANS or ASSESSMENTS.
        name: the metric.
        metric: what it is.
        aggregations: MLflow's `MetricAggregation`s.
        dimensions: names to group by.
        interval_ms: the width of a time bucket, 0 for none.
    """

    view: str
    name: str
    metric: Metric
    aggregations: Sequence[Any]
    dimensions: Sequence[str]
    interval_ms: int

    @property
    def names(self) -> list[str]:
        """The parts of a group's key."""
        return [*([TIME_BUCKET] if self.interval_ms else []), *self.dimensions]

    @property
    def needs_values(self) -> bool:
        """Whether single values are needed: for percentiles."""
        return any(a.aggregation_type.value == "PERCENTILE" for a in self.aggregations)


class TraceMetrics(TraceBase):
    """Aggregated metrics of traces, spans and assessments."""

    def query_trace_metrics(
        self,
        experiment_ids: list[str],
        view_type: Any,
        metric_name: str,
        aggregations: list[Any],
        dimensions: list[str] | None = None,
        filters: list[str] | None = None,
        time_interval_seconds: int | None = None,
        start_time_ms: int | None = None,
        end_time_ms: int | None = None,
        max_results: int = MOST_POINTS,
        page_token: str | None = None,
    ) -> Any:
        """Figures of a metric by time and dimensions, in the order of the groups; `page_token` is not looked at.

        Times of traces count by their start, of span costs by the span's, of other figures of spans and of
        assessments by their trace's.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for what cannot be asked.
        """
        view = str(getattr(view_type, "value", view_type))
        metric = checked(view, metric_name, aggregations, dimensions or ())
        if time_interval_seconds and (start_time_ms is None or end_time_ms is None):
            raise mlflow_error("start_time_ms and end_time_ms are required if time_interval_seconds is set")
        if time_interval_seconds is not None and time_interval_seconds < 0:
            raise mlflow_error(f"time_interval_seconds is {time_interval_seconds}; give a positive number of seconds.")
        interval = (time_interval_seconds or 0) * 1000
        asked = Asked(view, metric_name, metric, aggregations, list(dict.fromkeys(dimensions or ())), interval)
        scope = terms("experiment_id", [experiment_number(each) for each in experiment_ids])
        on_traces, on_parts = _filters(filters, view)
        own_time = "start_ms" if metric_name in _SPAN_TIMES else None
        within = _within(own_time or "timestamp_ms", start_time_ms, end_time_ms)
        if view == "TRACES":
            groups = self._grouped(TRACES, asked, [all_of([scope, *on_traces, *within])])
        elif view == "SPANS":
            on_spans = [scope, *(_span_query(part) for part in on_parts)]
            if own_time:
                on_spans += within
            else:
                on_traces = [*on_traces, *within]
            groups = self._grouped(SPANS, asked, self._span_queries(scope, on_traces, on_spans))
        else:
            groups = self._assessed(asked, all_of([scope, *on_traces, *within]), on_parts)
        if not asked.names:
            groups.setdefault((), Group())
        return PagedList(data_points(groups, asked.names, metric_name, aggregations, max_results), None)

    def _span_queries(self, scope: Query, on_traces: Sequence[Query], on_spans: Sequence[Query]) -> Iterable[Query]:
        """Queries for the spans that count; several where conditions are on their traces."""
        if not on_traces:
            yield all_of(on_spans)
            return
        body: dict[str, Any] = {
            "query": all_of([scope, *on_traces]),
            "size": TRACES_AT_ONCE,
            "sort": ["trace_id"],
            "_source": False,
            "stored_fields": "_none_",
        }
        while True:
            ids = [hit["sort"][0] for hit in self.docs.search(TRACES, body)["hits"]["hits"]]
            if ids:
                yield all_of([terms("trace_id", ids), *on_spans])
            if len(ids) < TRACES_AT_ONCE:
                return
            body["search_after"] = ids[-1:]

    def _grouped(self, index: Index, asked: Asked, queries: Iterable[Query]) -> dict[GroupKey, Group]:
        groups: dict[GroupKey, Group] = {}
        field = asked.metric.field
        for query in queries:
            whole = all_of([query, exists(field)]) if field else query
            if asked.name == "session_count":
                for key, _ in self._buckets(index, asked, whole, {}, by_value=True):
                    groups.setdefault(key[:-1], Group()).count += 1
            elif asked.needs_values:
                for key, found in self._buckets(index, asked, whole, _values(field), size=GROUPS // VALUES):
                    for value, times in self._counted_values(index, asked, whole, key, found):
                        groups.setdefault(key, Group()).add(value, times)
            else:
                for key, found in self._buckets(index, asked, whole, _figures(field)):
                    _add(groups.setdefault(key, Group()), found, field)
        return groups

    def _buckets(
        self,
        index: Index,
        asked: Asked,
        query: Query,
        aggs: Source,
        *,
        by_value: bool = False,
        size: int | None = None,
    ) -> Iterator[tuple[GroupKey, Source]]:
        """The groups with what was aggregated in them; one for all where there is nothing to group by."""
        sources = _group_sources(index, asked)
        sources += [{VALUE: {"terms": {"field": asked.metric.field}}}] if by_value else []
        if not sources:
            body = {"query": query, "size": 0, "track_total_hits": True, "aggs": aggs}
            answer = self.docs.search(index, body)
            yield (), {"doc_count": answer["hits"]["total"]["value"], **answer.get("aggregations", {})}
            return
        names = [*asked.names, VALUE] if by_value else asked.names
        size = size or STEP
        composite: dict[str, Any] = {"size": size, "sources": sources}
        while True:
            body = {"query": query, "size": 0, "aggs": {"groups": {"composite": composite, "aggs": aggs}}}
            answer = self.docs.search(index, body, fresh="after" not in composite)
            found = answer.get("aggregations", {}).get("groups", {})
            buckets = found.get("buckets", ())
            for bucket in buckets:
                yield tuple(bucket["key"][name] for name in names), bucket
            if len(buckets) < size:
                return
            composite["after"] = found["after_key"]

    def _counted_values(
        self, index: Index, asked: Asked, query: Query, key: GroupKey, found: Source
    ) -> Iterator[tuple[float, int]]:
        """The distinct values of a group and how often each occurs; read in steps where they are very many."""
        values = found.get("values", {"sum_other_doc_count": 0, "buckets": ()})
        if not values["sum_other_doc_count"]:
            yield from ((bucket["key"], bucket["doc_count"]) for bucket in values["buckets"])
            return
        own = all_of([query, *_inside(index, asked, key)])
        alone = replace(asked, dimensions=(), interval_ms=0)
        for (value,), bucket in self._buckets(index, alone, own, {}, by_value=True):
            yield value, bucket["doc_count"]

    def _assessed(self, asked: Asked, query: Query, parts: Sequence[Any]) -> dict[GroupKey, Group]:
        groups: dict[GroupKey, Group] = {}
        wanted = all_of([query, exists("assessment_tokens")])
        for hit in self.docs.scan(TRACES, wanted, "trace_id", source=["a", "timestamp_ms"], size=1_000):
            bucket = [hit.source["timestamp_ms"] // asked.interval_ms * asked.interval_ms] if asked.interval_ms else []
            for row in hit.source.get("a", ()):
                if not row["valid"] or not all(row[part.entity] == part.value for part in parts):
                    continue
                key = (*bucket, *(row[DIMENSIONS[name]] for name in asked.dimensions))
                if asked.metric.field is None:
                    groups.setdefault(key, Group()).count += 1
                    continue
                number = aggregate(json.loads(row["value"]))
                if number is not None:
                    groups.setdefault(key, Group()).add(number[0])
        return groups


def _group_sources(index: Index, asked: Asked) -> list[Any]:
    """The parts of a group's key for Elasticsearch."""
    sources: list[Any] = [{name: {"terms": {"field": DIMENSIONS[name]}}} for name in asked.dimensions]
    if asked.interval_ms:
        sources.insert(0, {TIME_BUCKET: {"histogram": {"field": _time(index), "interval": asked.interval_ms}}})
    return sources


def _inside(index: Index, asked: Asked, key: GroupKey) -> list[Query]:
    """The conditions for a group."""
    queries = []
    for name, part in zip(asked.names, key, strict=True):
        if name == TIME_BUCKET:
            queries.append(between(_time(index), gte=int(part), lt=int(part) + asked.interval_ms))
        else:
            queries.append(term(DIMENSIONS[name], part))
    return queries


def _time(index: Index) -> str:
    return "timestamp_ms" if index is TRACES else "start_ms"


def _figures(field: str | None) -> Source:
    return {"stats": {"stats": {"field": field}}} if field else {}


def _values(field: str | None) -> Source:
    return {"values": {"terms": {"field": field, "size": VALUES}}}


def _add(group: Group, found: Source, field: str | None) -> None:
    if field is None:
        group.count += found["doc_count"]
    elif found.get("stats", {}).get("count"):
        stats = found["stats"]
        group.add_summary(stats["count"], stats["sum"], stats["min"], stats["max"])


def _filters(filters: Sequence[str] | None, view: str) -> tuple[list[Query], list[Any]]:
    """Conditions on the traces, as queries, and on spans or assessments, as MLflow parsed them."""
    on_traces, on_parts = [], []
    parse: Callable[[str], Any] = search_utils.SearchTraceMetricsUtils.parse_search_filter
    for text in filters or ():
        part = parse(text)
        if part.view_type == "trace":
            on_traces.append(_trace_query(part))
        elif part.view_type.upper() + "S" != view:
            only = f"{part.view_type.upper()}S"
            raise mlflow_error(f"Filtering by {part.view_type} is only supported for {only} view type, got {view}")
        else:
            on_parts.append(part)
    return on_traces, on_parts


def _trace_query(part: Any) -> Query:
    if part.entity == "status":
        return term("status", part.value)
    if part.entity == "tag":
        if part.key == keys.TRACE_NAME:
            return term("name", part.value)
        return value_clause("tag", part.key, "=", part.value)[0]
    if part.key == keys.SESSION:
        return term("session_id", part.value)
    if part.key in keys.COLUMNS:
        return columns_query(part.key, "=", part.value)
    query = value_clause("metadata", part.key, "=", part.value)[0]
    return any_of([query, term("runs", part.value)]) if part.key == keys.SOURCE_RUN else query


def _span_query(part: Any) -> Query:
    return term(part.entity, bounded(part.value))


def _within(field: str, start_ms: int | None, end_ms: int | None) -> list[Query]:
    """The inclusive range; bounds beyond 64 bits bound nothing or everything."""
    bounds: dict[str, Any] = {}
    if start_ms is not None:
        bounds["gte"] = min(max(start_ms, -_INT64), _INT64 - 1)
    if end_ms is not None:
        bounds["lte"] = min(max(end_ms, -_INT64), _INT64 - 1)
    return [between(field, **bounds)] if bounds else []
