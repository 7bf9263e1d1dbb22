"""Spans of traces: writing them with what they say about their trace, and reading traces with them."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import Trace, TraceData

from mlflow_elasticsearch_tracking import span_tree
from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.indices_traces import SPANS, TRACES
from mlflow_elasticsearch_tracking.span_documents import Batch, batches_of, spans_of
from mlflow_elasticsearch_tracking.trace_base import SPAN_STEP, TraceBase, refuse_elsewhere, unavailable_spans
from mlflow_elasticsearch_tracking.trace_documents import (
    artifact_location,
    finite,
    is_there,
    span_key,
    token_count,
    trace_document,
    trace_info_of,
    trace_key,
    without_nothing,
)
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Document, Hit, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.queries import terms

#: Seconds between the attempts to read a trace whose spans are still on their way.
WAITS = (1.0, 2.0)
#: Up to so many spans are read by their ids.
FEW_SPANS = 20
_OPEN = ("IN_PROGRESS", "STATE_UNSPECIFIED")


class Spans(TraceBase):
    """Log and read spans."""

    def log_spans(self, location: str, spans: list[Any], tracking_uri: str | None = None) -> list[Any]:
        """Write spans, of one trace or several, and create the traces that are not there yet.

        Spans and traces go into one request; a repetition writes the same again. Tokens and cost of a trace follow
        from all its spans, so that no writer's share is lost, whoever else writes to the trace.

        Args:
            location: the experiment of new traces.
            spans: MLflow's spans.
            tracking_uri: not used.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for a missing experiment; `INVALID_STATE` for a trace whose
                spans are kept elsewhere.
        """
        if not spans:
            return []
        batches = batches_of(spans)
        found = self.docs.get_many(TRACES, [trace_key(trace_id) for trace_id in batches])
        experiment = self._once(lambda: self._experiment_source(location))
        actions: list[Action] = []
        changes: list[tuple[str, Action]] = []
        for trace_id, batch in batches.items():
            document = found.get(trace_key(trace_id))
            source = _with_batch(document.source if document else None, trace_id, batch, experiment)
            actions += _span_actions(trace_id, batch, source["experiment_id"])
            changes.append((trace_id, _trace_action(trace_id, source, document)))
        outcomes = bulk(self.docs, [*actions, *(action for _, action in changes)])
        for (trace_id, action), outcome in zip(changes, outcomes[len(actions) :], strict=True):
            if outcome.conflict:
                self._log_again(trace_id, batches[trace_id], action, experiment)
        return spans

    async def log_spans_async(self, location: str, spans: list[Any]) -> list[Any]:
        """`log_spans` in a thread, for MLflow's OTLP endpoint."""
        import asyncio

        return await asyncio.to_thread(self.log_spans, location, spans)

    def _once(self, make: Callable[[], Any]) -> Callable[[], Any]:
        made: list[Any] = []

        def get() -> Any:
            if not made:
                made.append(make())
            return made[0]

        return get

    def _log_again(self, trace_id: str, batch: Batch, action: Action, experiment: Callable[[], Any]) -> None:
        """Somebody else changed the trace between our read and our write: its spans are there, the trace is not."""
        source = self._put_trace(trace_id, lambda found: _with_batch(found, trace_id, batch, experiment))
        if source["experiment_id"] != (action.source or {})["experiment_id"]:
            bulk(self.docs, _span_actions(trace_id, batch, source["experiment_id"]))

    def get_trace(self, trace_id: str, *, allow_partial: bool = False) -> Trace:
        """A trace with its spans, the root first; waits up to 3 s for spans that its statistics announce.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for a missing trace, or one that stays incomplete and
                `allow_partial` is not set.
            MlflowTracingException: its spans are in the artifact repository.
        """
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            document = self.docs.get(TRACES, trace_key(trace_id))
            if document is None or not is_there(document.source):
                raise mlflow_error(f"Trace with ID {trace_id} is not found.", "RESOURCE_DOES_NOT_EXIST")
            found = self._with_spans([document.source], allow_partial)
            if found:
                return found[0]
        raise mlflow_error(
            f"Trace with ID {trace_id} is not fully exported yet, please try again later.", "RESOURCE_DOES_NOT_EXIST"
        )

    def batch_get_traces(
        self, trace_ids: list[str], location: str | None = None, experiment_ids: list[str] | None = None
    ) -> list[Trace]:
        """The traces that are there and complete, with their spans, in the order asked for.

        Raises:
            MlflowTracingException: the spans of one of them are in the artifact repository.
        """
        return self._with_spans(self._traces_in(trace_ids, experiment_ids), allow_partial=False)

    def _with_spans(self, sources: list[Source], allow_partial: bool) -> list[Trace]:
        for source in sources:
            if source.get("t", {}).get(keys.SPANS_LOCATION) != keys.IN_STORE:
                raise unavailable_spans()
        spans = self._spans_of(sources)
        traces = []
        for source in sources:
            own = spans[source["trace_id"]]
            if allow_partial or (own and len(own) >= _announced(source)):
                traces.append(Trace(info=trace_info_of(source), data=TraceData(spans=spans_of(own))))
        return traces

    def _spans_of(self, sources: Sequence[Mapping[str, Any]]) -> Mapping[str, list[Source]]:
        """The spans' sources by trace.

        The traces say which spans there are and what they are called. Many are searched for, which is faster; what
        a search does not see yet, or sees in a former state, is read by id.
        """
        wanted = {
            span_key(source["trace_id"], span): kind
            for source in sources
            for span, kind in span_tree.span_kinds(source).items()
        }
        found: dict[str, Source] = {}
        if len(wanted) > FEW_SPANS:
            for hit in self._span_hits([source["trace_id"] for source in sources]):
                if wanted.get(hit.id) == (hit.source["type"], hit.source["status"], hit.source["name"]):
                    found[hit.id] = hit.source
        missing = [key for key in wanted if key not in found]
        for start in range(0, len(missing), SPAN_STEP):
            found |= {d.id: d.source for d in self.docs.get_many(SPANS, missing[start : start + SPAN_STEP]).values()}
        spans: dict[str, list[Source]] = defaultdict(list)
        for key in wanted:
            if key in found:
                spans[found[key]["trace_id"]].append(found[key])
        return spans

    def _span_hits(self, trace_ids: Sequence[str]) -> Iterator[Hit]:
        order = [{"trace_id": "asc"}, {"span_id": "asc"}]
        after: list[Any] | None = None
        while True:
            query = terms("trace_id", trace_ids)
            hits = self.docs.page(SPANS, query, order, SPAN_STEP, after=after, fresh=False)
            yield from hits
            if len(hits) < SPAN_STEP:
                return
            after = hits[-1].sort


def _span_actions(trace_id: str, batch: Batch, experiment_id: str) -> list[Action]:
    return [
        Action("index", SPANS, span_key(trace_id, span), {**document, "experiment_id": experiment_id})
        for span, document in batch.documents.items()
    ]


def _trace_action(trace_id: str, source: Source, document: Document | None) -> Action:
    kind = "index" if document else "create"
    return Action(kind, TRACES, trace_key(trace_id), trace_document(source), document)  # type: ignore[arg-type]


def _announced(source: Mapping[str, Any]) -> int:
    """How many spans the trace says it has; 0 where it says nothing."""
    stats = source.get("m", {}).get(keys.SIZE_STATS)
    return int(json.loads(stats).get("num_spans", 0)) if stats else 0


def _with_batch(source: Source | None, trace_id: str, batch: Batch, experiment: Callable[[], Any]) -> Source:
    """The source of a trace, made where there is none, with what a batch of its spans says."""
    if is_there(source):
        assert source is not None
        refuse_elsewhere(source)
        new = dict(source)
    else:
        new = (source or {}) | _started(trace_id, batch, experiment())
    span_tree.grow(new, batch.spans.values())
    new["span_ms"] = min(new.get("span_ms", batch.start_ms), batch.start_ms)
    finalized = bool(new.get("finalized"))
    # As in MLflow's SQL store, a batch that reports nothing moves the times of a finalized trace, too.
    if not (finalized and batch.reports):
        new |= _times(new, batch)
    if new["status"] in _OPEN and batch.status:
        new["status"] = batch.status
    if batch.root:
        new |= _previews(new, batch.root)
    _count(new, batch, finalized)
    if batch.session_id and new.get("session_id") is None:
        new["session_id"] = batch.session_id
    if batch.user:
        new["m"] = {keys.USER: batch.user} | new.get("m", {})
    tags = {keys.SPANS_LOCATION: keys.IN_STORE} | (batch.resource_tags or {}) | batch.tags
    if keys.TRACE_NAME in tags:
        new["name"] = tags.pop(keys.TRACE_NAME)
    new["t"] = new.get("t", {}) | tags
    return without_nothing(new)


def _started(trace_id: str, batch: Batch, experiment: Mapping[str, Any]) -> Source:
    return {
        "trace_id": trace_id,
        "experiment_id": str(experiment["experiment_id"]),
        "timestamp_ms": batch.start_ms,
        "execution_time_ms": batch.end_ms - batch.start_ms if batch.end_ms else None,
        "status": batch.status or "IN_PROGRESS",
        "t": {keys.ARTIFACT_LOCATION: artifact_location(experiment, trace_id)},
    }


def _times(source: Mapping[str, Any], batch: Batch) -> Source:
    """The earliest start and, where a span has ended, the time up to the latest end."""
    before, lasted = source["timestamp_ms"], source.get("execution_time_ms")
    start = min(before, batch.start_ms)
    if batch.end_ms is None:
        return {"timestamp_ms": start}
    end = batch.end_ms if lasted is None else max(before + lasted, batch.end_ms)
    return {"timestamp_ms": start, "execution_time_ms": end - start}


def _previews(source: Mapping[str, Any], root: Mapping[str, Any]) -> Source:
    from mlflow.tracing.utils.truncation import _get_truncated_preview

    previews = {}
    attributes = root.get("attributes") or {}
    for field, key, role in (
        ("request_preview", keys.SPAN_INPUTS, "user"),
        ("response_preview", keys.SPAN_OUTPUTS, "assistant"),
    ):
        if source.get(field) is None and attributes.get(key):
            try:
                previews[field] = _get_truncated_preview(attributes[key], role=role)
            except (AttributeError, KeyError, TypeError, ValueError):
                # The preview of messages of an unknown shape is left open; the span has them.
                continue
    return previews


def _count(source: Source, batch: Batch, finalized: bool) -> None:
    """Tokens and cost from all spans, unless `start_trace` has given them."""
    for name, names, total, convert in (
        ("uses", keys.TOKEN_KEYS, span_tree.token_usage, token_count),
        ("costs", keys.COST_KEYS, span_tree.cost, finite),
    ):
        given = finalized and not source.get(f"{name}_counted") and any(source.get(n) is not None for n in names)
        if name in source and not given:
            counted = total(source)
            source |= without_nothing({n: convert(counted.get(n)) for n in names}) | {f"{name}_counted": True}
