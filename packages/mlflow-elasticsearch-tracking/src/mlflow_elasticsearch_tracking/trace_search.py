"""Searching traces: one search where the traces' documents can answer, candidates checked exactly where they cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import TraceInfo
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD, SEARCH_TRACES_DEFAULT_MAX_RESULTS

from mlflow_elasticsearch_tracking.assessment_filters import AssessmentFilter
from mlflow_elasticsearch_tracking.indices_traces import SPANS, TRACES
from mlflow_elasticsearch_tracking.trace_base import TraceBase, experiment_number
from mlflow_elasticsearch_tracking.trace_clauses import Check
from mlflow_elasticsearch_tracking.trace_documents import trace_info_of
from mlflow_elasticsearch_tracking.trace_filters import compile_filter, compile_order
from mlflow_elasticsearch_tracking.trace_span_filters import SpanFilter
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Hit
from mlflow_plugkit_elasticsearch.documents import PAGE, Source
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import Query, all_of, any_of, exists, terms

#: Traces with a candidate among their spans: a few are checked first; of many, pages are, in the order asked for.
FEW, MANY = 200, 10_000
MOST_STEP = 2_000
#: What entities and checks do not need of a trace's source.
UNUSED = ("tree", "uses", "costs")


@dataclass(frozen=True)
class TraceQuery:
    """A search for traces, ready to run.

    Attributes:
        scope: the experiments.
        query: on the traces, the scope included.
        checks: on the sources of the traces that it finds.
        spans: conditions that the traces' documents do not decide.
    """

    scope: Query
    query: Query
    checks: tuple[Check, ...]
    spans: SpanFilter | None

    @property
    def is_exact(self) -> bool:
        """Whether the query alone finds the right traces."""
        return not self.checks and self.spans is None


class TraceSearch(TraceBase):
    """Search traces by filter and order."""

    def search_traces(
        self,
        experiment_ids: list[str] | None = None,
        filter_string: str | None = None,
        max_results: int = SEARCH_TRACES_DEFAULT_MAX_RESULTS,
        order_by: list[str] | None = None,
        page_token: str | None = None,
        model_id: str | None = None,
        locations: list[str] | None = None,
    ) -> tuple[list[TraceInfo], str | None]:
        """A page of the traces that match, the latest first unless `order_by` says otherwise; the next page's token.

        As in MLflow's SQL store there is a token whenever the page is full, and `model_id` is not looked at.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not know, a bad page size or a
                token of another search.
        """
        experiments = resolve_locations(experiment_ids, locations)
        _check_page_size(max_results)
        order = compile_order(order_by)
        asked = (experiments, filter_string, order_by)
        after = decode_token(page_token, *asked)
        wanted = self._trace_query(experiments, filter_string)
        hits = list(self._trace_hits(wanted, order, max_results, after))
        token = encode_token(hits[-1].sort, *asked) if len(hits) == max_results else None
        return [trace_info_of(hit.source) for hit in hits], token

    def _trace_query(self, experiments: Sequence[str] | None, filter_string: str | None) -> TraceQuery:
        """What a filter asks for in these experiments; None means all of them."""
        scope = exists("experiment_id") if experiments is None else terms("experiment_id", experiments)
        compiled = compile_filter(filter_string)
        queries, checks = [scope, *compiled.queries], list(compiled.checks)
        for clause in compiled.assessments:
            wanted = AssessmentFilter(*clause)
            sessions = self._sessions_assessed(scope, wanted)
            query, check = wanted.covering(sessions)
            queries.append(query)
            checks += [check] if check else []
        spans = compiled.spans
        if not spans.kinds and not spans.texts:
            return TraceQuery(scope, all_of(queries), tuple(checks), None)
        queries += spans.trace_queries()
        if spans.needs_spans:
            return TraceQuery(scope, all_of(queries), tuple(checks), spans)
        check = spans.trace_check()
        checks += [check] if check else []
        if spans.start_ms is None:
            return TraceQuery(scope, all_of(queries), tuple(checks), None)
        late = self._late(spans, queries)
        return TraceQuery(scope, all_of([*queries, late]), tuple(checks), None)

    def _late(self, spans: SpanFilter, queries: Sequence[Query]) -> Query:
        """Traces whose spans all begin within the bound, and of the others those that have such a span that does."""
        early = {"range": {"span_ms": {"lt": spans.start_ms}}}
        hits = self.docs.scan(TRACES, all_of([*queries, early]), "trace_id", source=["trace_id"])
        ids = [hit.source["trace_id"] for hit in hits]
        within: Query = {"bool": {"must_not": [early]}}
        return any_of([within, terms("trace_id", sorted(self._with_span(ids, spans)))]) if ids else within

    def _sessions_assessed(self, scope: Query, wanted: AssessmentFilter) -> list[str]:
        """Sessions of which one trace has an assessment of the whole session that matches."""
        query, check = wanted.about_session()
        source = ["session_id", "a"] if check else ["session_id"]
        query = all_of([scope, exists("session_id"), query])
        hits = self.docs.scan(TRACES, query, "trace_id", source=source)
        return sorted({hit.source["session_id"] for hit in hits if check is None or check(hit.source)})

    def _trace_hits(
        self,
        wanted: TraceQuery,
        order: Sequence[Mapping[str, Any]],
        size: int,
        after: Sequence[Any] | None = None,
        fields: Sequence[str] | None = None,
    ) -> Iterator[Hit]:
        """At most `size` traces that match, in order; with `fields`, no more of their sources than needed."""
        query, spans = wanted.query, wanted.spans
        if spans is not None:
            found = self._few_with_span(wanted.scope, spans)
            if found is not None:
                query, spans = all_of([query, terms("trace_id", found)]), None
        source: Any = list(fields) if fields and not wanted.checks else {"excludes": UNUSED}
        step, narrowed = min(size, PAGE), False
        while True:
            hits = self.docs.page(TRACES, query, order, step, after=after, source=source)
            for hit in self._matching(hits, wanted.checks, spans):
                yield hit
                size -= 1
                if size == 0:
                    return
            if len(hits) < step:
                return
            after = hits[-1].sort
            step = min(size, PAGE) if wanted.is_exact else min(max(step, FEW) * 2, MOST_STEP)
            if spans is not None and not narrowed:
                query, narrowed = self._narrowed(query, wanted.scope, spans), True

    def _matching(self, hits: Sequence[Hit], checks: Sequence[Check], spans: SpanFilter | None) -> list[Hit]:
        kept = [hit for hit in hits if all(check(hit.source) for check in checks)]
        if spans is None or not kept:
            return kept
        found = self._with_span([hit.source["trace_id"] for hit in kept], spans)
        return [hit for hit in kept if hit.source["trace_id"] in found]

    # Spans.

    def _few_with_span(self, scope: Query, spans: SpanFilter) -> list[str] | None:
        """The traces with such a span; None where there may be more than a few."""
        hits = self._one_span_each(all_of([scope, *spans.span_queries()]), FEW)
        if len(hits) == FEW:
            return None
        found = {hit["trace_id"] for hit in hits if spans.matches(hit)}
        return sorted(found | self._with_other_span([h["trace_id"] for h in hits if h["trace_id"] not in found], spans))

    def _narrowed(self, query: Query, scope: Query, spans: SpanFilter) -> Query:
        """The traces' query with those that have a candidate, unless these are very many."""
        body = {
            "query": all_of([scope, *spans.span_queries()]),
            "size": MANY,
            "collapse": {"field": "trace_id"},
            "sort": ["_doc"],
            "_source": False,
        }
        hits = self.docs.search(SPANS, body)["hits"]["hits"]
        if len(hits) == MANY:
            return query
        return all_of([query, terms("trace_id", [hit["fields"]["trace_id"][0] for hit in hits])])

    def _with_span(self, trace_ids: Sequence[str], spans: SpanFilter) -> set[str]:
        """Which of the traces have such a span."""
        found: set[str] = set()
        for start in range(0, len(trace_ids), FEW):
            some = trace_ids[start : start + FEW]
            hits = self._one_span_each(all_of([terms("trace_id", some), *spans.span_queries()]), len(some))
            right = {hit["trace_id"] for hit in hits if spans.matches(hit)}
            found |= right | self._with_other_span([h["trace_id"] for h in hits if h["trace_id"] not in right], spans)
        return found

    def _one_span_each(self, query: Query, size: int) -> list[Source]:
        """One candidate of each trace: mostly it is right."""
        body = {
            "query": query,
            "size": size,
            "collapse": {"field": "trace_id"},
            "sort": ["_doc"],
        }
        return [hit["_source"] for hit in self.docs.search(SPANS, body)["hits"]["hits"]]

    def _with_other_span(self, trace_ids: Sequence[str], spans: SpanFilter) -> set[str]:
        """Which of the traces have such a span, where the first candidate was none: all candidates are read."""
        found: set[str] = set()
        after: list[Any] | None = None
        while trace_ids:
            query = all_of([terms("trace_id", trace_ids), *spans.span_queries()])
            order = [{"trace_id": "asc"}, {"span_id": "asc"}]
            hits = self.docs.page(SPANS, query, order, FEW, after=after)
            found |= {hit.source["trace_id"] for hit in hits if spans.matches(hit.source)}
            if len(hits) < FEW:
                break
            after = hits[-1].sort
        return found


def resolve_locations(experiment_ids: Sequence[str] | None, locations: Sequence[str] | None) -> list[str] | None:
    """The experiments to search; None for all.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for both lists, or for what is no experiment.
    """
    if experiment_ids and locations:
        raise mlflow_error("`experiment_ids` is deprecated, use `locations` instead.")
    chosen = experiment_ids or locations
    if chosen is None:
        return None
    wrong = [location for location in chosen if "." in str(location)]
    if wrong:
        raise mlflow_error(f"Locations must be a list of experiment IDs. Found invalid experiment IDs: {wrong}.")
    return [experiment_number(location) for location in chosen]


def _check_page_size(max_results: Any) -> None:
    if max_results is None or max_results < 1:
        raise mlflow_error(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer"
        )
    if max_results > SEARCH_MAX_RESULTS_THRESHOLD:
        raise mlflow_error(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be at most "
            f"{SEARCH_MAX_RESULTS_THRESHOLD}"
        )
