"""Assessments are made, changed, overridden and deleted as in MLflow's own store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback
from mlflow.entities.assessment import ExpectationValue, FeedbackValue
from mlflow.exceptions import MlflowException
from trace_samples import info, new_trace_id


def code(do: Callable[[], Any]) -> str | None:
    """The code of the error that it raises."""
    try:
        do()
    except MlflowException as exc:
        return str(exc.error_code)
    return None


def plain(assessment: Any) -> dict[str, Any]:
    """An assessment as plain data."""
    error = getattr(assessment, "error", None)
    return {
        "name": assessment.name,
        "value": assessment.value,
        "error": error and (error.error_code, error.error_message),
        "source": (assessment.source.source_type, assessment.source.source_id),
        "rationale": assessment.rationale,
        "metadata": assessment.metadata,
        "span": assessment.span_id,
        "valid": assessment.valid,
        "overrides": assessment.overrides,
        "created": assessment.create_time_ms,
    }


@pytest.fixture
def trace(store: Any, own: Any) -> str:
    """The id of a trace in both stores."""
    trace_id = new_trace_id()
    for each in (own, store):
        each.start_trace(info(trace_id, each.create_experiment("assessed")))
    return trace_id


def test_assessments_are_read_back_as_from_mlflows_own_store(store: Any, own: Any, trace: str) -> None:
    """Values of any kind, errors, sources, metadata and rationales come back."""
    given = [
        lambda: Feedback("a", 0.5, trace_id=trace, rationale="ü", metadata={"k": "v"}, span_id="s1", create_time_ms=7),
        lambda: Feedback("b", None, AssessmentError("E", "failed", "stack"), trace_id=trace, create_time_ms=8),
        lambda: Feedback(
            "c", {"x": [1, "y"]}, source=AssessmentSource("HUMAN", "ada"), trace_id=trace, create_time_ms=9
        ),
        lambda: Expectation("d", ["x", 1], trace_id=trace, create_time_ms=10),
        lambda: Expectation("e", False, trace_id=trace, create_time_ms=11),
    ]
    for make in given:
        expected, got = own.create_assessment(make()), store.create_assessment(make())
        assert plain(got) == plain(expected)
        assert plain(store.get_assessment(trace, got.assessment_id)) == plain(got)
    shown = [[plain(a) for a in each.get_trace_info(trace).assessments] for each in (own, store)]
    assert sorted(shown[0], key=str) == sorted(shown[1], key=str)


def test_an_override_makes_the_former_one_invalid_until_it_is_deleted(store: Any, trace: str) -> None:
    """The overridden assessment counts for no search, and counts again after the other is gone."""
    experiment = store.get_trace_info(trace).experiment_id
    first = store.create_assessment(Feedback("good", "no", trace_id=trace))
    second = store.create_assessment(Feedback("good", "yes", trace_id=trace, overrides=first.assessment_id))

    def found(value: str) -> int:
        return len(store.search_traces([experiment], f"feedback.good = '{value}'")[0])

    assert store.get_assessment(trace, first.assessment_id).valid is False
    assert (found("no"), found("yes")) == (0, 1)
    store.delete_assessment(trace, second.assessment_id)
    store.delete_assessment(trace, second.assessment_id)
    assert store.get_assessment(trace, first.assessment_id).valid is True
    assert (found("no"), found("yes")) == (1, 0)


def test_updates_keep_what_they_do_not_name(store: Any, own: Any, trace: str) -> None:
    """Name, value, rationale and metadata change one by one; the source and the rest stay."""
    results = []
    for each in (own, store):
        made = each.create_assessment(
            Feedback("q", 1, AssessmentError("E"), trace_id=trace, rationale="r", metadata={"a": "1"}, create_time_ms=5)
        )
        seen = []
        for change in (
            {"name": "q2"},
            {"rationale": "r2"},
            {"metadata": {"b": "2"}},
            {"feedback": FeedbackValue(value=0.25)},
            {"feedback": FeedbackValue(value=None, error=AssessmentError("F"))},
        ):
            seen.append(plain(each.update_assessment(trace, made.assessment_id, **change)))
            assert plain(each.get_assessment(trace, made.assessment_id)) == seen[-1]
        assert each.get_assessment(trace, made.assessment_id).last_update_time_ms > 5
        results.append(seen)
    assert results[0] == results[1]


def test_refusals(store: Any, own: Any, trace: str) -> None:
    """Missing traces and assessments, and values of the other kind, are refused with MLflow's codes."""
    for each in (own, store):
        feedback = each.create_assessment(Feedback("q", 1, trace_id=trace)).assessment_id
        expectation = each.create_assessment(Expectation("x", 1, trace_id=trace)).assessment_id
        two = {"feedback": FeedbackValue(1), "expectation": ExpectationValue(1)}
        codes = [
            code(lambda: each.get_assessment(trace, "a-none")),  # noqa: B023 # called at once
            code(lambda: each.get_assessment("tr-none", "a-none")),  # noqa: B023
            code(lambda: each.update_assessment(trace, "a-none", name="x")),  # noqa: B023
            code(lambda: each.update_assessment(trace, feedback, expectation=ExpectationValue(1))),  # noqa: B023
            code(lambda: each.update_assessment(trace, expectation, feedback=FeedbackValue(1))),  # noqa: B023
            code(lambda: each.update_assessment(trace, feedback, **two)),  # noqa: B023
            code(lambda: each.create_assessment(Feedback("q", 1, trace_id=trace, overrides="a-none"))),  # noqa: B023
            code(lambda: each.create_assessment(Feedback("q", 1, trace_id="tr-none"))),  # noqa: B023
            code(lambda: each.delete_assessment("tr-none", "a-none")),  # noqa: B023
        ]
        missing, bad = "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"
        assert codes == [missing, missing, missing, bad, bad, bad, missing, missing, None], type(each).__name__


def test_start_trace_brings_assessments(store: Any, experiment: str) -> None:
    """Assessments that come with a trace join those that it has."""
    trace_id = new_trace_id()
    store.start_trace(info(trace_id, experiment, assessments=[Feedback("one", 1)]))
    store.create_assessment(Feedback("two", 2, trace_id=trace_id))
    store.start_trace(info(trace_id, experiment, assessments=[Feedback("three", 3)]))
    assert [a.name for a in store.get_trace_info(trace_id).assessments] == ["one", "two", "three"]


@pytest.mark.parametrize("comparison", ["IS NOT NULL", "= '3'", "> 2", "< 4", "LIKE '3%'"])
def test_a_name_longer_than_an_index_term_is_found(store: Any, own: Any, comparison: str) -> None:
    """250 letters that take two bytes each are one name, and no prefix of it is; what MLflow refuses is refused."""
    name, assessed, other = "ä" * 250, new_trace_id(), new_trace_id()
    answers = []
    for each in (own, store):
        experiment = each.create_experiment("long names")
        each.start_trace(info(assessed, experiment, assessments=[Feedback(name, 3)]))
        each.start_trace(info(other, experiment, assessments=[Feedback(name[:-1], 3)]))
        try:
            found, _ = each.search_traces([experiment], f"feedback.`{name}` {comparison}")
            answers.append([trace.trace_id for trace in found])
        except MlflowException as exc:
            answers.append([exc.error_code])
    assert answers[0] == answers[1]
    assert answers[0] in ([assessed], ["INVALID_PARAMETER_VALUE"])
