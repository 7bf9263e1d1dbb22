"""What a maker of agents does with traces, by MLflow's public functions.

Run with a tracking URI, and a server's URL for OTLP or "-". Prints one line of JSON: what was read back.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback, SpanType


@mlflow.trace(span_type=SpanType.RETRIEVER)
def look_up(question: str) -> list[str]:
    """A child span."""
    return [f"a page about {question}"]


@mlflow.trace(span_type=SpanType.CHAT_MODEL)
def say(pages: list[str]) -> str:
    """A child span that reports tokens."""
    span = mlflow.get_current_active_span()
    assert span is not None
    span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15})
    return f"I read {len(pages)} pages, größer als zuvor"


@mlflow.trace(name="agent", span_type=SpanType.AGENT)
def answer(question: str) -> str:
    """The root span."""
    mlflow.update_current_trace(tags={"team": "blue"}, metadata={"mlflow.trace.session": "talk-1"})
    if question == "fail":
        raise ValueError("no such question")
    return say(look_up(question))


def traced() -> dict[str, Any]:
    """Trace functions, one of which fails; read the trace back."""
    answer("trains")
    trace_id = mlflow.get_last_active_trace_id()
    try:
        answer("fail")
    except ValueError:
        failed_id = mlflow.get_last_active_trace_id()
    mlflow.flush_trace_async_logging()
    trace, failed = _complete(trace_id), _complete(failed_id)
    return {
        "spans": [[s.name, s.span_type, s.parent_id is None] for s in trace.data.spans],
        "outputs": trace.data.spans[0].outputs,
        "tokens": trace.info.token_usage,
        "tags": trace.info.tags.get("team"),
        "states": [str(trace.info.state.value), str(failed.info.state.value)],
        "event": [event.name for span in failed.data.spans for event in span.events][:1],
    }


def found() -> dict[str, Any]:
    """Search the traces."""
    filters = (
        "status = 'ERROR'", "tags.team = 'blue'", "trace.text LIKE '%größer%'", "span.type = 'RETRIEVER'",
        "span.name = 'say' AND span.type = 'RETRIEVER'", "metadata.`mlflow.trace.session` = 'talk-1'",
    )  # fmt: skip
    counts = {f: len(mlflow.search_traces(filter_string=f, return_type="list")) for f in filters}
    return {"counts": counts, "frame": sorted(mlflow.search_traces()["state"].astype(str))}


def assessed() -> dict[str, Any]:
    """Log feedback and an expectation, override and delete; find by them."""
    (trace,) = mlflow.search_traces(filter_string="status = 'OK'", return_type="list")
    trace_id = trace.info.trace_id
    human = AssessmentSource(source_type="HUMAN", source_id="ada")
    mlflow.log_feedback(trace_id=trace_id, name="good", value=False, source=human, rationale="too short")
    mlflow.log_expectation(trace_id=trace_id, name="said", value="ja", source=human)
    first = next(a for a in mlflow.get_trace(trace_id).info.assessments if a.name == "good")
    mlflow.override_feedback(trace_id=trace_id, assessment_id=first.assessment_id, value=True, source=human)
    mlflow.update_assessment(
        trace_id=trace_id, assessment_id=first.assessment_id, assessment=Feedback("good", value=False, rationale="new")
    )
    read = mlflow.get_trace(trace_id).info.assessments
    return {
        "feedback": sorted([a.value, a.valid, a.rationale] for a in read if a.name == "good"),
        "expected": [a.value for a in read if a.name == "said"],
        "found": len(mlflow.search_traces(filter_string="feedback.good = 'true'", return_type="list")),
    }


def linked() -> dict[str, Any]:
    """Traces inside a run belong to it; tags change; the oldest go."""
    client = MlflowClient()
    with mlflow.start_run() as run:
        answer("in a run")
    mlflow.flush_trace_async_logging()
    own = _until(lambda: mlflow.search_traces(run_id=run.info.run_id, return_type="list"))
    client.set_trace_tag(own[0].info.trace_id, "seen", "yes")
    seen = len(mlflow.search_traces(filter_string="tags.seen = 'yes'", return_type="list"))
    client.delete_trace_tag(own[0].info.trace_id, "seen")
    experiment = own[0].info.experiment_id
    gone = client.delete_traces(experiment, trace_ids=[own[0].info.trace_id])
    left = len(mlflow.search_traces(return_type="list"))
    return {"of run": len(own), "seen": seen, "gone": gone, "left": left}


def exported(url: str, experiment_id: str) -> dict[str, Any]:
    """Send spans as any OpenTelemetry program does, in two exports."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    headers = {"x-mlflow-experiment-id": experiment_id}
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces", headers=headers)))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("checkout") as root:
        with tracer.start_as_current_span("pay") as child:
            child.set_attributes({"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 2, "session.id": "s-9"})
        root.set_attribute("user.id", "ada")
    provider.shutdown()
    (trace,) = _until(lambda: mlflow.search_traces(filter_string="span.name = 'checkout'", return_type="list"))
    return {
        "spans": [span.name for span in trace.data.spans],
        "service": trace.info.tags.get("service.name"),
        "tokens": (trace.info.token_usage or {}).get("total_tokens"),
        "who": [trace.info.trace_metadata.get(f"mlflow.trace.{key}") for key in ("session", "user")],
        "state": trace.info.state.value,
    }


def _complete(trace_id: str | None) -> Any:
    return _until(lambda: mlflow.get_trace(trace_id or ""))


def _until(read: Any) -> Any:
    """What is read as soon as there is something; exports run in the background."""
    deadline = time.monotonic() + 20
    while True:
        got = read()
        if got is not None and (not isinstance(got, list) or got):
            return got
        if time.monotonic() > deadline:
            raise TimeoutError("nothing arrived within 20 s")
        time.sleep(0.05)


def main() -> None:
    """Do it all and print what was read."""
    uri, url = sys.argv[1:3]
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.set_experiment("agents")
    facts = {part.__name__: part() for part in (traced, found, assessed, linked)}
    if url != "-":
        facts["exported"] = exported(url, experiment.experiment_id)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
