"""Traces: their info, tags, metadata and links."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow.entities import TraceInfo
from mlflow.entities.trace_info_v2 import TraceInfoV2
from mlflow.entities.trace_status import TraceStatus
from mlflow.utils.validation import _validate_trace_tag

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.assessment_documents import assessment_row
from mlflow_elasticsearch_tracking.indices_traces import SPANS, TRACES
from mlflow_elasticsearch_tracking.span_documents import span_document
from mlflow_elasticsearch_tracking.span_tree import span_ids
from mlflow_elasticsearch_tracking.trace_base import SPAN_STEP, TraceBase, experiment_number, refuse_elsewhere
from mlflow_elasticsearch_tracking.trace_documents import (
    artifact_location,
    checked_name,
    columns_of,
    is_there,
    linked,
    plain_metadata,
    span_key,
    trace_document,
    trace_info_of,
    trace_key,
    without_nothing,
)
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Conflict, bulk
from mlflow_plugkit_elasticsearch.documents import Source

MOST_LINKS = 100
DELETE_STEP = 500


class Traces(TraceBase):
    """Start, read, change and delete traces."""

    def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        """Create a trace, or complete the one that its spans have made already.

        What the info gives replaces what spans gave; tokens, cost and session that it leaves open stay the spans'.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, `INVALID_PARAMETER_VALUE` for a missing or deleted
                experiment; `INVALID_STATE` for a trace whose spans are elsewhere.
        """
        checked_name(trace_info.tags.get(keys.TRACE_NAME))
        experiment = self._active_experiment(str(trace_info.experiment_id))
        given = _given(trace_info, experiment)
        try:
            source = self.docs.create(TRACES, trace_key(trace_info.trace_id), trace_document(given)).source
        except Conflict:
            source = self._complete_trace(trace_info.trace_id, given)
        return trace_info_of(source)

    def _complete_trace(self, trace_id: str, given: Source) -> Source:
        moved_from: list[str] = []

        def change(source: Source | None) -> Source:
            moved_from[:] = [source["experiment_id"]] if source is not None and is_there(source) else []
            return _completed(source, given)

        source = self._put_trace(trace_id, change)
        if moved_from and moved_from[0] != source["experiment_id"]:
            self._move_spans(source)
        return source

    def _move_spans(self, trace: Source) -> None:
        """Let the spans of a trace follow it into its experiment."""
        ids = [span_key(trace["trace_id"], span) for span in span_ids(trace)]
        for start in range(0, len(ids), SPAN_STEP):
            spans = self.docs.get_many(SPANS, ids[start : start + SPAN_STEP])
            new = {"experiment_id": trace["experiment_id"]}
            bulk(self.docs, [Action("index", SPANS, d.id, span_document(d.source | new)) for d in spans.values()])

    def get_trace_info(self, trace_id: str) -> TraceInfo:
        """The info of a trace.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        return trace_info_of(self._trace_source(trace_id))

    def batch_get_trace_infos(
        self, trace_ids: list[str], location: str | None = None, experiment_ids: list[str] | None = None
    ) -> list[TraceInfo]:
        """The infos of the traces that are there (in these experiments), in the order asked for."""
        return [trace_info_of(source) for source in self._traces_in(trace_ids, experiment_ids)]

    def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag; MLflow truncates long values.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad key; `RESOURCE_DOES_NOT_EXIST`.
        """
        key, value = _validate_trace_tag(key, value)
        if key == keys.TRACE_NAME:
            checked_name(value)
        self._change_trace(trace_id, lambda source: _tagged(source, {key: value}))

    def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Delete a tag.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for a missing trace or tag.
        """

        def change(source: Source) -> Source:
            tags = dict(source.get("t", {}))
            if key == keys.TRACE_NAME:
                tags[key] = source.pop("name", None)
            if tags.pop(key, None) is None:
                raise no_tag
            return source | {"t": tags}

        no_tag = mlflow_error(
            f"No trace tag with key '{key}' for trace with ID '{trace_id}'", "RESOURCE_DOES_NOT_EXIST"
        )
        self.docs.update(
            TRACES,
            trace_key(trace_id),
            lambda source: trace_document(change(source)) if is_there(source) else _refuse(no_tag),
            lambda: no_tag,
        )

    def link_traces_to_run(self, trace_ids: list[str], run_id: str) -> None:
        """Link traces to a run; a link is kept for a trace that has not arrived yet.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for more than 100 traces.
        """
        if len(trace_ids) > MOST_LINKS:
            raise mlflow_error(
                f"Cannot link more than {MOST_LINKS} traces to a run in a single request. Provided {len(trace_ids)}."
            )
        self._link(trace_ids, "runs", [run_id])

    def unlink_traces_from_run(self, trace_ids: list[str], run_id: str) -> None:
        """Remove links between traces and a run; links that are not there are no error."""
        found = self.docs.get_many(TRACES, [trace_key(trace_id) for trace_id in dict.fromkeys(trace_ids)])
        for document in found.values():
            if run_id in document.source.get("runs", ()):
                self.docs.update(TRACES, document.id, lambda source: _unlinked(source, run_id))

    def link_prompts_to_trace(self, trace_id: str, prompt_versions: list[Any]) -> None:
        """Link prompt versions to a trace.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for a missing trace.
        """
        if prompt_versions:
            more = [f"{version.name}/{version.version}" for version in prompt_versions]
            self._change_trace(trace_id, lambda source: source | {"prompts": linked(source.get("prompts", ()), more)})

    def _link(self, trace_ids: Iterable[str], name: str, more: list[str]) -> None:
        """Add links to all traces in one request; one by one only where somebody changed a trace meanwhile."""
        unique = list(dict.fromkeys(trace_ids))
        found = self.docs.get_many(TRACES, [trace_key(trace_id) for trace_id in unique])
        actions, changed = [], []
        for trace_id in unique:
            document = found.get(trace_key(trace_id))
            source = dict(document.source) if document else {}
            if set(more) <= set(source.get(name, ())):
                continue
            source[name] = linked(source.get(name, ()), more)
            kind = "index" if document else "create"
            actions.append(Action(kind, TRACES, trace_key(trace_id), trace_document(source), document))  # type: ignore[arg-type]
            changed.append(trace_id)
        for trace_id, outcome in zip(changed, bulk(self.docs, actions) if actions else (), strict=True):
            if outcome.conflict:
                self._put_trace(trace_id, lambda s: {**(s or {}), name: linked((s or {}).get(name, ()), more)})

    def _delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: list[str] | None = None,
    ) -> int:
        """Delete traces of an experiment, the oldest first, with all their spans; how many there were."""
        from mlflow_plugkit_elasticsearch.queries import all_of, between, term, terms

        conditions = [term("experiment_id", experiment_number(experiment_id))]
        if max_timestamp_millis is not None:
            conditions.append(between("timestamp_ms", lte=max_timestamp_millis))
        if trace_ids:
            conditions.append(terms("trace_id", trace_ids))
        order = [{"timestamp_ms": "asc"}, {"trace_id": "asc"}]
        deleted, left, after = 0, max_traces, None
        while left is None or left > 0:
            step = min(DELETE_STEP, DELETE_STEP if left is None else left)
            hits = self.docs.page(TRACES, all_of(conditions), order, step, after=after, source=False)
            deleted += self._remove_traces([hit.sort[1] for hit in hits])
            if len(hits) < step:
                break
            after, left = hits[-1].sort, None if left is None else left - step
        return deleted

    def _remove_traces(self, trace_ids: list[str]) -> int:
        """Delete traces: their spans first, so that a repetition after a crash finds the rest."""
        found = self._trace_sources(trace_ids)
        for trace_id, document in found.items():
            spans = [Action("delete", SPANS, span_key(trace_id, span)) for span in span_ids(document.source)]
            for start in range(0, len(spans), 5_000):
                bulk(self.docs, spans[start : start + 5_000])
        outcomes = bulk(self.docs, [Action("delete", TRACES, d.id) for d in found.values()]) if found else []
        if found:
            self._forget_reviewed_traces(list(found))
        return sum(outcome.found for outcome in outcomes)

    # The API of MLflow before 3.3, which its server still offers.

    def deprecated_start_trace_v2(
        self, experiment_id: str, timestamp_ms: int, request_metadata: dict[str, str], tags: dict[str, str]
    ) -> TraceInfoV2:
        """Create a trace that is in progress."""
        from mlflow.tracing.utils import generate_request_id_v2

        checked_name(tags.get(keys.TRACE_NAME))
        experiment = self._active_experiment(experiment_id)
        trace_id = generate_request_id_v2()
        source = {
            "trace_id": trace_id,
            "experiment_id": str(experiment_id),
            "timestamp_ms": timestamp_ms,
            "status": TraceStatus.IN_PROGRESS.value,
            "m": plain_metadata(request_metadata),
            **without_nothing(columns_of(request_metadata)),
        }
        source = _tagged(source, {**tags, keys.ARTIFACT_LOCATION: artifact_location(experiment, trace_id)})
        return TraceInfoV2.from_v3(
            trace_info_of(self.docs.create(TRACES, trace_key(trace_id), trace_document(source)).source)
        )

    def deprecated_end_trace_v2(
        self,
        request_id: str,
        timestamp_ms: int,
        status: TraceStatus,
        request_metadata: dict[str, str],
        tags: dict[str, str],
    ) -> TraceInfoV2:
        """Complete a trace that `deprecated_start_trace_v2` created.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        checked_name(tags.get(keys.TRACE_NAME))
        columns = columns_of(request_metadata)

        def change(source: Source) -> Source:
            new = source | {
                "execution_time_ms": timestamp_ms - source["timestamp_ms"],
                "status": TraceStatus(status).value,
                "m": source.get("m", {}) | plain_metadata(request_metadata),
            }
            return _tagged(without_nothing(new | columns), tags)

        return TraceInfoV2.from_v3(trace_info_of(self._change_trace(request_id, change)))


def _given(info: TraceInfo, experiment: Source) -> Source:
    """The source that an info makes, with None where it leaves something open."""
    metadata = dict(info.trace_metadata)
    source = {
        "trace_id": info.trace_id,
        "experiment_id": str(info.experiment_id),
        "timestamp_ms": info.request_time,
        "execution_time_ms": info.execution_duration,
        "status": info.state.value,
        "client_request_id": info.client_request_id,
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        **columns_of(metadata),
        "m": plain_metadata(metadata) | {keys.FINALIZED: "true"},
        "a": [assessment_row(assessment) for assessment in info.assessments],
        "finalized": True,
    }
    tags = {**info.tags, keys.ARTIFACT_LOCATION: artifact_location(experiment, info.trace_id)}
    return without_nothing(_tagged(source, tags))


def _completed(source: Source | None, given: Source) -> Source:
    """An existing trace with what `start_trace` gives."""
    if source is None:
        return given
    if not is_there(source):
        return given | source
    refuse_elsewhere(source)
    new = {k: v for k, v in source.items() if k not in ("execution_time_ms", "client_request_id")} | given
    new["t"] = source.get("t", {}) | given["t"]
    new["m"] = source.get("m", {}) | given["m"]
    for counted, names in (("uses_counted", keys.TOKEN_KEYS), ("costs_counted", keys.COST_KEYS)):
        if not given.keys().isdisjoint(names):
            new.pop(counted, None)
    rows = {row["id"]: row for row in source.get("a", ())} | {row["id"]: row for row in given["a"]}
    return new | {"a": list(rows.values())}


def _tagged(source: Source, tags: dict[str, str]) -> Source:
    """The source with more tags; the trace's name has a column."""
    plain = {k: v for k, v in tags.items() if k != keys.TRACE_NAME}
    new = source | {"t": source.get("t", {}) | plain}
    return new | {"name": tags[keys.TRACE_NAME]} if keys.TRACE_NAME in tags else new


def _unlinked(source: Source, run_id: str) -> Source:
    return trace_document(source | {"runs": [run for run in source.get("runs", ()) if run != run_id]})


def _refuse(error: Exception) -> Source:
    raise error
