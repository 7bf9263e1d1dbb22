"""Sessions that have come to rest, and how two filters go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_elasticsearch_tracking.trace_base import TraceBase, experiment_number
from mlflow_elasticsearch_tracking.trace_filters import compile_order
from mlflow_elasticsearch_tracking.trace_search import TraceQuery
from mlflow_plugkit_elasticsearch import Hit
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, Query, all_of, between, exists, term, terms

SESSIONS = 5_000
#: More traces than a search can find.
ALL = 2**31


class TraceSessions(TraceBase):
    """Completed sessions and correlations of filters."""

    if TYPE_CHECKING:

        def _trace_query(self, experiments: Sequence[str] | None, filter_string: str | None) -> TraceQuery: ...
        def _trace_hits(
            self,
            wanted: TraceQuery,
            order: Sequence[Any],
            size: int,
            after: Sequence[Any] | None = None,
            fields: Sequence[str] | None = None,
        ) -> Iterator[Hit]: ...

    def find_completed_sessions(
        self,
        experiment_id: str,
        min_last_trace_timestamp_ms: int,
        max_last_trace_timestamp_ms: int,
        max_results: int | None = None,
        filter_string: str | None = None,
    ) -> list[Any]:
        """Sessions whose last trace is within the bounds (inclusive), by that time and by id.

        With a filter, sessions whose first trace matches it.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad experiment id or filter.
        """
        from mlflow.genai.scorers.online.entities import CompletedSession

        scope = term("experiment_id", experiment_number(experiment_id))
        recent = between("timestamp_ms", gte=min_last_trace_timestamp_ms)
        names = [name for name, _, _ in self._sessions(all_of([scope, recent, exists("session_id")]))]
        found: list[tuple[int, str, int]] = []
        for start in range(0, len(names), SESSIONS):
            own = all_of([scope, terms("session_id", names[start : start + SESSIONS])])
            spans = {name: (first, last) for name, first, last in self._sessions(own)}
            spans = {name: times for name, times in spans.items() if times[1] <= max_last_trace_timestamp_ms}
            wanted = self._first_matches(experiment_id, filter_string, spans) if filter_string else set(spans)
            found += [(last, name, first) for name, (first, last) in spans.items() if name in wanted]
        found.sort(key=lambda session: (session[0], session[1].encode()))
        return [CompletedSession(name, first, last) for last, name, first in found[:max_results]]

    def _sessions(self, query: Query) -> Iterator[tuple[str, int, int]]:
        """Sessions with the times of their first and last traces, among the traces of the query."""
        composite: dict[str, Any] = {"size": SESSIONS, "sources": [{"id": {"terms": {"field": "session_id"}}}]}
        times = {name: {name: {"field": "timestamp_ms"}} for name in ("min", "max")}
        while True:
            body = {"query": query, "size": 0, "aggs": {"sessions": {"composite": composite, "aggs": times}}}
            answer = self.docs.search(TRACES, body, fresh="after" not in composite)
            found = answer.get("aggregations", {}).get("sessions", {})
            for bucket in found.get("buckets", ()):
                yield bucket["key"]["id"], int(bucket["min"]["value"]), int(bucket["max"]["value"])
            if len(found.get("buckets", ())) < SESSIONS:
                return
            composite["after"] = found["after_key"]

    def _first_matches(self, experiment_id: str, filter_string: str, spans: dict[str, tuple[int, int]]) -> set[str]:
        """Which sessions' first traces match."""
        if not spans:
            return set()
        wanted = self._trace_query([experiment_number(experiment_id)], filter_string)
        within = all_of([wanted.query, terms("session_id", sorted(spans))])
        needed = ("trace_id", "session_id", "timestamp_ms")
        hits = self._trace_hits(replace(wanted, query=within), compile_order(None), ALL, fields=needed)
        firsts = ((hit.source["session_id"], hit.source["timestamp_ms"]) for hit in hits)
        return {session for session, time in firsts if spans[session][0] == time}

    def calculate_trace_filter_correlation(
        self, experiment_ids: list[str], filter_string1: str, filter_string2: str, base_filter: str | None = None
    ) -> Any:
        """How often two filters match together, and their normalized pointwise mutual information.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad filter.
        """
        from mlflow.store.analytics.trace_correlation import calculate_npmi_from_counts
        from mlflow.tracing.analysis import TraceFilterCorrelationResult

        experiments = [experiment_number(each) for each in experiment_ids]
        filters = [f"{base_filter} and {each}" if base_filter else each for each in (filter_string1, filter_string2)]
        base = self._trace_query(experiments, base_filter)
        queries = [base, *(self._trace_query(experiments, each) for each in filters)]
        total, first, second, joint = (
            self._counted(queries) if all(each.is_exact for each in queries) else self._collected(queries)
        )
        npmi = calculate_npmi_from_counts(joint, first, second, total)
        return TraceFilterCorrelationResult(
            npmi=npmi.npmi,
            npmi_smoothed=npmi.npmi_smoothed,
            filter1_count=first,
            filter2_count=second,
            joint_count=joint,
            total_count=total,
        )

    def _counted(self, queries: Sequence[TraceQuery]) -> tuple[int, int, int, int]:
        base, first, second = (each.query for each in queries)
        filters = {"total": MATCH_ALL, "first": first, "second": second, "joint": all_of([first, second])}
        body = {"query": base, "size": 0, "aggs": {"counts": {"filters": {"filters": filters}}}}
        answer = self.docs.search(TRACES, body)
        buckets = answer.get("aggregations", {}).get("counts", {}).get("buckets", {})
        total, one, two, both = (buckets.get(name, {}).get("doc_count", 0) for name in filters)
        return total, one, two, both

    def _collected(self, queries: Sequence[TraceQuery]) -> tuple[int, int, int, int]:
        """Counted one by one where the traces' documents alone do not decide."""
        base, first, second = (
            {hit.source["trace_id"] for hit in self._trace_hits(each, [{"trace_id": "asc"}], ALL, fields=["trace_id"])}
            for each in queries
        )
        return len(base), len(base & first), len(base & second), len(base & first & second)
