"""Assessments between MLflow's entities and the rows that a trace's document keeps of them.

A row: `id`, `name`, `type` (feedback, expectation, issue), `value`, `error` and `metadata` as JSON text, `created`,
`updated`, `source_type`, `source_id`, `run_id`, `span_id`, `rationale`, `overrides`, `valid`. What is None is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.trace_keys import ASSESSMENT_SOURCE_RUN as SOURCE_RUN
from mlflow_elasticsearch_tracking.trace_keys import SESSION
from mlflow_plugkit.compat import optional_attribute
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import key_token, sortable_float, token

Row = dict[str, Any]
#: The fields that `assessment_fields` makes.
FIELDS = ("assessment_tokens", "assessment_numbers", "session_tokens", "session_numbers", "issues")
ISSUE, FEEDBACK, EXPECTATION = "issue", "feedback", "expectation"


def assessment_row(assessment: Any) -> Row:
    """The row of an entity, which gets an id where it has none.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an assessment without a value.
    """
    from mlflow.tracing.utils import generate_assessment_id

    if assessment.assessment_id is None:
        assessment.assessment_id = generate_assessment_id()
    kind, value, error = _content(assessment)
    now = now_ms()
    row = {
        "id": assessment.assessment_id,
        "name": assessment.name,
        "type": kind,
        "value": json.dumps(value),
        "error": json.dumps(error.to_dictionary()) if error else None,
        "created": assessment.create_time_ms or now,
        "updated": assessment.last_update_time_ms or now,
        "source_type": assessment.source.source_type,
        "source_id": assessment.source.source_id,
        "run_id": getattr(assessment, "run_id", None),
        "span_id": assessment.span_id,
        "rationale": assessment.rationale,
        "overrides": assessment.overrides,
        "valid": True,
        "metadata": json.dumps(assessment.metadata) if assessment.metadata else None,
    }
    return {k: v for k, v in row.items() if v is not None}


def _content(assessment: Any) -> tuple[str, Any, Any]:
    if assessment.feedback is not None:
        return FEEDBACK, assessment.feedback.value, assessment.feedback.error
    if assessment.expectation is not None:
        return EXPECTATION, assessment.expectation.value, None
    issue = getattr(assessment, "issue", None)
    if issue is not None:
        return ISSUE, issue.to_dictionary(), None
    raise mlflow_error("The assessment has no value. Give it a feedback, an expectation or an issue.")


def assessment_of(row: Mapping[str, Any], trace_id: str) -> Any:
    """MLflow's entity of a row."""
    value = json.loads(row["value"])
    given = {
        "source": AssessmentSource(source_type=row["source_type"], source_id=row.get("source_id")),
        "trace_id": trace_id,
        "metadata": json.loads(row["metadata"]) if "metadata" in row else None,
        "span_id": row.get("span_id"),
        "create_time_ms": row["created"],
        "last_update_time_ms": row["updated"],
    }
    assessment: Any
    if row["type"] == FEEDBACK:
        error = AssessmentError.from_dictionary(json.loads(row["error"])) if "error" in row else None
        assessment = Feedback(name=row["name"], value=value, error=error, rationale=row.get("rationale"), **given)
    elif row["type"] == EXPECTATION:
        assessment = Expectation(name=row["name"], value=value, **given)
    else:
        assessment = _issue_reference()(
            issue_id=row["name"],
            issue_name=value.get("issue_name"),
            run_id=row.get("run_id"),
            rationale=row.get("rationale"),
            **given,
        )
    assessment.overrides, assessment.valid = row.get("overrides"), row["valid"]
    assessment.run_id, assessment.assessment_id = row.get("run_id"), row["id"]
    return assessment


@lru_cache(maxsize=1)
def _issue_reference() -> Any:
    found = optional_attribute("mlflow.entities.assessment", "IssueReference")
    if found is None:
        raise mlflow_error("This MLflow knows no issues. Upgrade MLflow to read this trace.", "NOT_IMPLEMENTED")
    return found


def assessment_fields(rows: Iterable[Mapping[str, Any]]) -> Source:
    """What a trace's document derives from its assessments, for searches; what MLflow took back is left out."""
    fields: dict[str, list[str]] = {name: [] for name in FIELDS}
    for row in rows:
        if row["type"] == ISSUE:
            fields["issues"].append(row["name"])
        if made_by := source_run(row):
            fields["assessment_tokens"].append(source_run_term(made_by))
        if not row["valid"]:
            continue
        key = assessment_key(row["type"], row["name"])
        number = aggregate(json.loads(row["value"]))
        for about in ("assessment", "session") if is_about_session(row) else ("assessment",):
            fields[f"{about}_tokens"] += [key_token(key), token(key, row["value"])]
            if number is not None and number[1]:
                fields[f"{about}_numbers"].append(token(key, sortable_float(number[0])))
    return dict(fields)


def assessment_key(kind: str, name: str) -> str:
    """The key that an assessment's value has in a trace's fields."""
    return f"{kind}\x00{name}"


def source_run(row: Mapping[str, Any]) -> str | None:
    """The run that made an assessment, which its metadata name (`mlflow.genai.evaluate` does)."""
    if f'"{SOURCE_RUN}":' not in row.get("metadata", ""):
        return None
    run_id = json.loads(row["metadata"])[SOURCE_RUN]
    return run_id if isinstance(run_id, str) else None


def source_run_term(run_id: str) -> str:
    """The term of `assessment_tokens` that traces with assessments of a run have; no kind of assessment is so named."""
    return token("source run", run_id)


def is_about_session(row: Mapping[str, Any]) -> bool:
    """Whether an assessment is about the whole session of its trace: its metadata name the session."""
    return f'"{SESSION}":' in row.get("metadata", "")


def aggregate(value: Any) -> tuple[float, bool] | None:
    """What figures make of a value, and whether it is a number: true and "yes" count as 1, false and "no" as 0."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return (number, True) if math.isfinite(number) else None
    said = value.strip().lower() if isinstance(value, str) else ""
    return (float(said == "yes"), False) if said in ("yes", "no") else None
