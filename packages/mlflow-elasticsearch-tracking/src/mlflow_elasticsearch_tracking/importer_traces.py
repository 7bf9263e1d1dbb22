"""The import of traces: info, tags, metadata, assessments, spans, and links to runs and prompts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking import span_tree
from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.assessment_documents import Row, assessment_row
from mlflow_elasticsearch_tracking.importer_base import Imports, found
from mlflow_elasticsearch_tracking.indices_traces import SPANS, TRACES
from mlflow_elasticsearch_tracking.span_documents import Batch, batches_of
from mlflow_elasticsearch_tracking.trace_documents import (
    columns_of,
    linked,
    plain_metadata,
    span_key,
    trace_document,
    trace_key,
    without_nothing,
)
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import all_pages, paged

_PAGE = 50
_RUNS_PAGE = 1_000


class TraceImports(Imports):
    """Copies the traces of an experiment."""

    def parts(self, experiment_id: str) -> Iterator[Part]:
        """The traces of an experiment."""
        if not self.may_have("trace_info", experiment_id):
            return
        runs: list[Mapping[str, list[str]]] = []

        def write(infos: Sequence[Any]) -> None:
            if infos and not self.source.is_database and not runs:
                runs.append(self._runs_of_traces(experiment_id))
            self._write(infos, runs[0] if runs else {})

        yield Part(
            f"traces of experiment {experiment_id}",
            lambda token: self._read(experiment_id, token),
            write,
            self.counter(TRACES, experiment_id),
            lambda info: str(info.trace_id),
            self._sides,
        )

    def _read(self, experiment_id: str, token: str | None, filter_string: str | None = None) -> Any:
        return paged(
            self.source.tracking.search_traces(
                locations=[experiment_id],
                filter_string=filter_string,
                max_results=_PAGE,
                order_by=["timestamp_ms ASC"],
                page_token=token,
            )
        )

    def _write(self, infos: Sequence[Any], runs: Mapping[str, Sequence[str]]) -> None:
        if not infos:
            return
        batches = self._spans(infos)
        links = self._links(infos, runs)
        actions: list[Action] = []
        for info in infos:
            batch = batches.get(info.trace_id)
            source = _source(info, batch) | links.get(info.trace_id, {})
            for span_id, span in batch.documents.items() if batch else ():
                document = {**span, "experiment_id": source["experiment_id"]}
                actions.append(Action("index", SPANS, span_key(info.trace_id, span_id), document))
            actions.append(Action("index", TRACES, trace_key(info.trace_id), trace_document(source)))
        bulk(self.docs, actions)

    def _spans(self, infos: Sequence[Any]) -> dict[str, Batch]:
        """The spans that the source itself keeps; those in artifact repositories stay there."""
        kept = [info.trace_id for info in infos if info.tags.get(keys.SPANS_LOCATION) == keys.IN_STORE]
        if not kept:
            return {}
        traces = {trace.info.trace_id: trace for trace in self.source.tracking.batch_get_traces(kept, None)}
        spans = [span for trace in traces.values() for span in trace.data.spans]
        for trace_id in kept:
            if trace_id not in traces:
                spans += self._spans_of_incomplete(trace_id)
        return batches_of(spans)

    def _spans_of_incomplete(self, trace_id: str) -> list[Any]:
        try:
            trace = self.source.tracking.get_trace(trace_id, allow_partial=True)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":  # it has no span yet
                raise
            return []
        return list(trace.data.spans)

    def _links(self, infos: Sequence[Any], runs: Mapping[str, Sequence[str]]) -> dict[str, Source]:
        links: defaultdict[str, Source] = defaultdict(dict)
        if not self.source.is_database:
            for info in infos:
                prompts = [f"{one['name']}/{one['version']}" for one in _prompts(info)]
                links[info.trace_id] = without_nothing(
                    {"runs": runs.get(info.trace_id) or None, "prompts": prompts or None}
                )
            return links
        columns = ["source_id", "destination_type", "destination_id"]
        kinds = {"run": "runs", "prompt_version": "prompts"}
        where = {"source_type": "trace", "source_id": [i.trace_id for i in infos], "destination_type": list(kinds)}
        for trace_id, kind, to in self.source.rows("entity_associations", columns, where, ["created_time", *columns]):
            own = links[trace_id]
            own[kinds[kind]] = linked(own.get(kinds[kind], ()), [to])
        return links

    def _runs_of_traces(self, experiment_id: str) -> dict[str, list[str]]:
        """The runs that traces of an experiment are linked to: a server answers that for one run at a time."""
        links: defaultdict[str, list[str]] = defaultdict(list)
        tracking = self.source.tracking
        runs = all_pages(
            lambda token: paged(tracking._search_runs([experiment_id], "", ViewType.ALL, _RUNS_PAGE, [], token))
        )
        for run in runs:
            run_id = run.info.run_id
            for info in all_pages(lambda token, run_id=run_id: self._of_run(experiment_id, run_id, token)):  # type: ignore[misc]
                if info.trace_metadata.get(keys.SOURCE_RUN) != run_id:
                    links[info.trace_id].append(run_id)
        return links

    def _of_run(self, experiment_id: str, run_id: str, token: str | None) -> Any:
        return self._read(experiment_id, token, f"attributes.run_id = '{run_id}'")

    def _sides(self, info: Any) -> tuple[Any, Any]:
        own = found(lambda: self.store.get_trace_info(info.trace_id))
        expected, there = _told(info), _told(own)
        if there is not None and info.tags.get(keys.SPANS_LOCATION) == keys.IN_STORE:
            for told, store in ((expected, self.source.tracking), (there, self.store)):
                traces = store.batch_get_traces([info.trace_id], None)
                spans = [span.to_dict() for trace in traces for span in trace.data.spans]
                told["spans"] = {span["span_id"]: span for span in spans}
        return expected, there


def _told(info: Any) -> Any:
    told = plain(info)
    if told is not None and "assessments" in told:
        # A server does not tell of every kind that it is valid.
        told["assessments"] = sorted(str(sorted(({"valid": True} | one).items())) for one in told["assessments"])
    return told


def _prompts(info: Any) -> list[Any]:
    """The prompts that a client noted in a tag when it linked them."""
    text = info.tags.get(keys.LINKED_PROMPTS)
    return list(json.loads(text)) if text else []


def _source(info: Any, batch: Batch | None) -> Source:
    """A trace as its info tells it; its spans add what searches need of them and change nothing of that."""
    metadata, tags = dict(info.trace_metadata), dict(info.tags)
    source: Source = {
        "trace_id": info.trace_id,
        "experiment_id": str(info.experiment_id),
        "timestamp_ms": info.request_time,
        "execution_time_ms": info.execution_duration,
        "status": info.state.value,
        "name": tags.pop(keys.TRACE_NAME, None),
        "client_request_id": info.client_request_id,
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        **columns_of(metadata),
        "t": tags,
        "m": plain_metadata(metadata),
        "a": [_assessment(one) for one in info.assessments],
        "finalized": True if keys.FINALIZED in metadata else None,
    }
    if batch is not None:
        span_tree.grow(source, batch.spans.values())
        source["span_ms"] = batch.start_ms
    return without_nothing(source)


def _assessment(assessment: Any) -> Row:
    return assessment_row(assessment) | {"valid": assessment.valid is not False}
