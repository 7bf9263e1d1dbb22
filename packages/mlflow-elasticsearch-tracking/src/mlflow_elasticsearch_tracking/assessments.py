"""Assessments of traces: feedback, expectations and references to issues."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlflow_elasticsearch_tracking.assessment_documents import (
    EXPECTATION,
    FEEDBACK,
    Row,
    assessment_of,
    assessment_row,
    source_run,
    source_run_term,
)
from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_elasticsearch_tracking.trace_base import TraceBase
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.queries import terms


class Assessments(TraceBase):
    """Create, read, change and delete assessments; they are kept in their trace's document."""

    def create_assessment(self, assessment: Any) -> Any:
        """Add an assessment; the one that it overrides becomes invalid.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for a missing trace or overridden assessment;
                `INVALID_PARAMETER_VALUE` without a value; `INTERNAL_ERROR` for an id that the trace has already.
        """
        row = assessment_row(assessment)
        trace_id = assessment.trace_id

        def change(source: Source) -> Source:
            rows = _rows(source)
            if row["id"] in rows:
                raise mlflow_error(f"Trace '{trace_id}' has an assessment {row['id']!r} already.", "INTERNAL_ERROR")
            if "overrides" in row:
                overridden = _row(rows, trace_id, row["overrides"])
                rows[row["overrides"]] = overridden | {"valid": False}
            return source | {"a": [*rows.values(), row]}

        self._change_trace(trace_id, change)
        return assessment_of(row, trace_id)

    def get_assessment(self, trace_id: str, assessment_id: str) -> Any:
        """One assessment.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        return assessment_of(_row(_rows(self._trace_source(trace_id)), trace_id, assessment_id), trace_id)

    def update_assessment(
        self,
        trace_id: str,
        assessment_id: str,
        name: str | None = None,
        expectation: Any = None,
        feedback: Any = None,
        rationale: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Any:
        """Change an assessment; None leaves a field as it is, metadata are merged.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a value of the other kind.
        """
        changed: list[Row] = []

        def change(source: Source) -> Source:
            rows = _rows(source)
            row = _row(rows, trace_id, assessment_id) | {"updated": now_ms()}
            row |= _new_value(row["type"], expectation, feedback)
            if feedback is not None and not feedback.error:
                row.pop("error", None)
            row |= {k: v for k, v in (("name", name), ("rationale", rationale)) if v is not None}
            if metadata:
                row["metadata"] = json.dumps({**json.loads(row.get("metadata", "{}")), **metadata})
            rows[assessment_id] = row
            changed[:] = [row]
            return source | {"a": list(rows.values())}

        self._change_trace(trace_id, change)
        return assessment_of(changed[0], trace_id)

    def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Delete an assessment; the one that it had overridden is valid again. A missing one is no error."""

        def change(source: Source) -> Source | None:
            rows = _rows(source)
            gone = rows.pop(assessment_id, None)
            if gone is None:
                return None
            overridden = rows.get(gone.get("overrides", ""))
            if overridden:
                rows[overridden["id"]] = overridden | {"valid": True}
            return source | {"a": list(rows.values())}

        if self._trace_sources([trace_id]):
            self._change_trace(trace_id, change)

    def _delete_assessments_of(self, run_ids: Sequence[str]) -> None:
        """Delete the assessments that some runs made, of whatever experiment their traces are."""
        gone = set(run_ids)

        def change(source: Source) -> Source | None:
            rows = source.get("a", [])
            left = [row for row in rows if source_run(row) not in gone]
            return None if len(left) == len(rows) else source | {"a": left}

        self.docs.refresh(TRACES, always=True)
        query = terms("assessment_tokens", [source_run_term(run_id) for run_id in run_ids])
        for hit in list(self.docs.scan(TRACES, query, "trace_id", source=["trace_id"])):
            self._change_trace(hit.source["trace_id"], change)


def _rows(source: Source) -> dict[str, Row]:
    return {row["id"]: row for row in source.get("a", ())}


def _row(rows: dict[str, Row], trace_id: str, assessment_id: str) -> Row:
    if assessment_id not in rows:
        raise mlflow_error(
            f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'", "RESOURCE_DOES_NOT_EXIST"
        )
    return rows[assessment_id]


def _new_value(kind: str, expectation: Any, feedback: Any) -> Row:
    if expectation is not None and feedback is not None:
        raise mlflow_error("Cannot specify both `expectation` and `feedback` parameters.")
    if expectation is not None:
        if kind != EXPECTATION:
            raise mlflow_error("Cannot update expectation value on a Feedback assessment.")
        return {"value": json.dumps(expectation.value)}
    if feedback is None:
        return {}
    if kind != FEEDBACK:
        raise mlflow_error("Cannot update feedback value on an Expectation assessment.")
    error = {"error": json.dumps(feedback.error.to_dictionary())} if feedback.error else {}
    return {"value": json.dumps(feedback.value), **error}
