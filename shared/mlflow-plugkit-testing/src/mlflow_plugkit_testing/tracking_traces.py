"""Rules about traces, spans and assessments (the trace API of MLflow >= 3.3)."""

from __future__ import annotations

import inspect
import uuid
from typing import Any

import pytest

from mlflow_plugkit_testing.stores import all_pages, noting, refused
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, mlflow_has, need, new_run

MISSING = "tr-0123456789abcdef0123456789abcdef"

FILTERS = [
    ("tags.colour = 'red'", "03"),
    ("timestamp_ms > 1000 AND timestamp_ms <= 1002", "12"),
    ("status = 'OK'", "0123"),
    ("tags.colour = 'none'", ""),
]


def new_trace(store: Any, experiment_id: str, at: int = 1000, **tags: str) -> str:
    """Start a trace by its info, return its id."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    info = TraceInfo(
        trace_id=f"tr-{uuid.uuid4().hex}",
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=at,
        execution_duration=at // 10,
        state=TraceState.OK,
        trace_metadata={"source": "kit"},
        tags=tags,
        request_preview="asked",
        response_preview="told",
    )
    return str(store.start_trace(info).trace_id)


def new_span(trace_id: str, name: str = "root", parent: int | None = None, number: int = 1) -> Any:
    """A finished span, as OpenTelemetry makes it."""
    from mlflow.entities.span import Span, create_mlflow_span
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    otel_trace_id = int(trace_id.removeprefix("tr-"), 16)
    flags = TraceFlags(1)
    span = ReadableSpan(
        name=name,
        context=SpanContext(otel_trace_id, number, is_remote=False, trace_flags=flags),
        parent=SpanContext(otel_trace_id, parent, is_remote=False, trace_flags=flags) if parent else None,
        attributes={
            "mlflow.traceRequestId": f'"{trace_id}"',
            "mlflow.spanType": '"LLM"',
            "mlflow.spanInputs": '{"q": "ü"}',
        },
        start_time=1_000_000_000 + number,
        end_time=2_000_000_000 + number,
        status=Status(StatusCode.OK),
    )
    made: Span = create_mlflow_span(span, trace_id)
    return made


class TraceRules(TrackingStoreSuite):
    """Starting, reading, tagging, searching and deleting traces."""

    @pytest.fixture
    def traces(self, store: Any) -> Any:
        """The store, where this MLflow has the newer trace API and the plugin keeps traces."""
        from mlflow.store.tracking.abstract_store import AbstractStore

        if "trace_info" not in inspect.signature(AbstractStore.start_trace).parameters:
            pytest.skip("this MLflow has no start_trace(trace_info)")
        need(self.supports_traces, "traces")
        return store

    def test_a_trace_is_read_back(self, traces: Any, experiment: str) -> None:
        """Time, duration, state, tags, metadata and previews of a trace are read back."""
        trace_id = new_trace(traces, experiment, 1000, colour="rot ü")
        info = traces.get_trace_info(trace_id)
        read = (info.request_time, info.execution_duration, info.state.value, info.tags["colour"], info.request_preview)
        assert read == (1000, 100, "OK", "rot ü", "asked"), f"a trace was read back as {read}"
        assert info.trace_metadata["source"] == "kit", "the metadata of a trace was lost"
        assert info.experiment_id == experiment, "a trace was put in another experiment"
        assert "mlflow.artifactLocation" in info.tags, (
            "a trace must have the tag mlflow.artifactLocation (its spans' place)"
        )

    @pytest.mark.parametrize("operation", ["get_trace_info", "delete_trace_tag"])
    def test_a_missing_trace_is_named_as_such(self, traces: Any, operation: str) -> None:
        """An unknown trace id raises `RESOURCE_DOES_NOT_EXIST`."""
        arguments = ("k",) if operation == "delete_trace_tag" else ()
        with refused("RESOURCE_DOES_NOT_EXIST", f"{operation} on an unknown trace"):
            getattr(traces, operation)(MISSING, *arguments)

    def test_trace_tags_are_set_overwritten_and_deleted(self, traces: Any, experiment: str) -> None:
        """A tag of a trace set again has its new value; an unknown key raises `RESOURCE_DOES_NOT_EXIST`."""
        trace_id = new_trace(traces, experiment, a="1")
        traces.set_trace_tag(trace_id, "a", "2")
        traces.set_trace_tag(trace_id, "b", "3")
        tags = traces.get_trace_info(trace_id).tags
        assert (tags.get("a"), tags.get("b")) == ("2", "3"), f"tags of a trace must be overwritten by key: {tags}"
        traces.delete_trace_tag(trace_id, "a")
        assert "a" not in traces.get_trace_info(trace_id).tags, "delete_trace_tag left the tag in place"
        with refused("RESOURCE_DOES_NOT_EXIST", "deleting an unknown tag of a trace"):
            traces.delete_trace_tag(trace_id, "a")

    def test_traces_are_searched(self, traces: Any, experiment: str) -> None:
        """Filters on attributes and tags choose traces of the given experiments, in the order asked for."""
        for i, colour in enumerate(("red", "blue", "green", "red")):
            new_trace(traces, experiment, 1000 + i, colour=colour, number=str(i))
        new_trace(traces, traces.create_experiment("other"), 1001, colour="red", number="9")
        wrong: list[str] = []
        for filter_string, wanted in FILTERS:
            with noting(wrong, filter_string):
                found, _ = traces.search_traces([experiment], filter_string, 100, ["timestamp_ms ASC"])
                numbers = "".join(t.tags["number"] for t in found)
                assert numbers == wanted, f"found {numbers!r}, not {wanted!r}"
        assert not wrong, "filters that chose the wrong traces: " + "; ".join(wrong)

    def test_pages_of_traces_cover_all_once(self, traces: Any, experiment: str) -> None:
        """Pages hold at most max_results traces and cover all exactly once, latest first."""
        for i in range(5):
            new_trace(traces, experiment, 1000 + i)
        pages = all_pages(lambda token: traces.search_traces([experiment], None, 2, None, token))
        times = [[t.request_time for t in page] for page in pages if page]
        assert times == [[1004, 1003], [1002, 1001], [1000]], f"pages of traces must cover all exactly once: {times}"

    def test_bad_trace_searches_are_refused(self, traces: Any, experiment: str) -> None:
        """A filter that MLflow does not know raises `INVALID_PARAMETER_VALUE`."""
        for filter_string in ("colour = 'red'", "tags.a > '1'", "timestamp_ms ="):
            with refused("INVALID_PARAMETER_VALUE", f"search_traces({filter_string!r})"):
                traces.search_traces([experiment], filter_string)

    def test_traces_are_deleted(self, traces: Any, experiment: str) -> None:
        """`delete_traces` removes by id or by age, and returns how many."""
        ids = [new_trace(traces, experiment, 1000 + i) for i in range(4)]
        assert traces.delete_traces(experiment, trace_ids=[ids[3]]) == 1, "delete_traces by id must return 1"
        count = traces.delete_traces(experiment, max_timestamp_millis=1001, max_traces=10)
        assert count == 2, f"delete_traces by age must delete the two oldest and say so, it returned {count}"
        left = [t.trace_id for t in traces.search_traces([experiment])[0]]
        assert left == [ids[2]], "delete_traces deleted the wrong traces"

    def test_spans_are_read_back(self, traces: Any, experiment: str) -> None:
        """Spans logged to the store are read back with the trace, in the order of their start."""
        mlflow_has("batch_get_traces", "batch_get_traces")
        need(self.supports_spans, "spans")
        trace_id = f"tr-{uuid.uuid4().hex}"
        traces.log_spans(experiment, [new_span(trace_id), new_span(trace_id, "child", parent=1, number=2)])
        new_trace_info = traces.get_trace_info(trace_id)
        assert new_trace_info.experiment_id == experiment, "log_spans of an unknown trace must create it"
        found = traces.batch_get_traces([trace_id])
        assert len(found) == 1, "batch_get_traces did not find the trace whose spans were logged"
        read = [(s.name, s.inputs, s.parent_id is None) for s in found[0].data.spans]
        assert read == [("root", {"q": "ü"}, True), ("child", {"q": "ü"}, False)], f"spans were read back as {read}"

    def test_traces_are_linked_to_a_run(self, traces: Any, experiment: str) -> None:
        """`link_traces_to_run` lets `search_traces` find them by `run_id`."""
        mlflow_has("link_traces_to_run", "link_traces_to_run")
        run_id, linked = new_run(traces, experiment), new_trace(traces, experiment)
        new_trace(traces, experiment)
        traces.link_traces_to_run([linked], run_id)
        traces.link_traces_to_run([linked], run_id)
        found = [t.trace_id for t in traces.search_traces([experiment], f"attributes.run_id = '{run_id}'")[0]]
        assert found == [linked], f"the traces linked to a run must be found by run_id, found {len(found)}"


class AssessmentRules(TraceRules):
    """Feedback and expectations on traces."""

    @pytest.fixture
    def assessed(self, traces: Any) -> Any:
        """The store, where this MLflow and the plugin have assessments."""
        mlflow_has("create_assessment", "assessments in the store")
        need(self.supports_assessments, "assessments")
        return traces

    def test_assessments_are_read_back(self, assessed: Any, experiment: str) -> None:
        """Feedback and expectation are read back by id and with their trace."""
        from mlflow.entities import Expectation, Feedback

        trace_id = new_trace(assessed, experiment)
        good = assessed.create_assessment(Feedback(name="good", value=True, trace_id=trace_id, rationale="why ü"))
        assessed.create_assessment(Expectation(name="answer", value={"a": [1]}, trace_id=trace_id))
        read = assessed.get_assessment(trace_id, good.assessment_id)
        shown = (read.name, read.feedback.value, read.rationale)
        assert shown == ("good", True, "why ü"), f"feedback was read back as {shown}"
        names = sorted(a.name for a in assessed.get_trace_info(trace_id).assessments)
        assert names == ["answer", "good"], f"a trace must show its assessments: {names}"

    def test_assessments_are_updated_and_deleted(self, assessed: Any, experiment: str) -> None:
        """An update changes what it names; a deleted assessment raises `RESOURCE_DOES_NOT_EXIST`."""
        from mlflow.entities import Feedback
        from mlflow.entities.assessment import FeedbackValue

        trace_id = new_trace(assessed, experiment)
        made = assessed.create_assessment(Feedback(name="good", value=1, trace_id=trace_id, rationale="why"))
        assessed.update_assessment(trace_id, made.assessment_id, feedback=FeedbackValue(5))
        read = assessed.get_assessment(trace_id, made.assessment_id)
        assert (read.feedback.value, read.rationale, read.name) == (5, "why", "good"), (
            "update_assessment lost or kept too much"
        )
        assessed.delete_assessment(trace_id, made.assessment_id)
        with refused("RESOURCE_DOES_NOT_EXIST", "get_assessment of a deleted assessment"):
            assessed.get_assessment(trace_id, made.assessment_id)

    def test_an_assessment_needs_its_trace(self, assessed: Any) -> None:
        """An assessment of an unknown trace raises `RESOURCE_DOES_NOT_EXIST`."""
        from mlflow.entities import Feedback

        with refused("RESOURCE_DOES_NOT_EXIST", "create_assessment on an unknown trace"):
            assessed.create_assessment(Feedback(name="good", value=1, trace_id=MISSING))
