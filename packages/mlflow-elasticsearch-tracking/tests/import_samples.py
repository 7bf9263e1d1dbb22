"""A source to import from, filled through MLflow's own client: everything that an import of tracking data copies.

Run as a script, in a process of its own: `python import_samples.py URI FOLDER`.
"""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    AssessmentSource,
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    SpanType,
)

KEY = "größe a.b/c:大"
ODD = "größe 'x' \"y\" 大 \\ * a.b/c"


def fill(uri: str, folder: str) -> None:
    """Fill a tracking and registry store through the client; artifacts go below the folder."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient(uri, uri)
    first = client.create_experiment(f"first {ODD}", f"{folder}/first", tags={"t.1": "ü", "empty": ""})
    gone = client.create_experiment("gone", f"{folder}/gone")
    runs = [_run(client, first, number) for number in range(5)]
    child = client.create_run(first, tags={"mlflow.parentRunId": runs[0]}, run_name="child").info.run_id
    client.log_metric(child, "loss", 0.25, 5, 1)
    client.delete_run(runs[4])
    in_gone = client.create_run(gone).info.run_id
    client.log_param(in_gone, "p", "1")
    _models(client, first, runs[1])
    trace_ids = _traces(client, first, runs[0])
    _genai(client, first, trace_ids)
    client.delete_experiment(gone)


def _run(client: MlflowClient, experiment: str, number: int) -> str:
    run_id = client.create_run(experiment, start_time=1_000 + number % 3, run_name=f"run {number}").info.run_id
    points = [Metric("loss", 1.0 / (step + 1), 10_000 + step, step) for step in range(40 * number)]
    points += [
        Metric("odd", value, 5, step) for step, value in enumerate([math.nan, math.inf, -math.inf, -0.0, 5e-324])
    ]
    points += [Metric("big steps", 1.0, 7, 2**62), Metric("big steps", 2.0, 7, -(2**62))]
    params, tags = [Param(KEY, ODD), Param("long", "x" * 6_000)], [RunTag(KEY, ODD), RunTag("long", "y" * 5_000)]
    client.log_batch(run_id, points, params, tags)
    data = DatasetInput(
        Dataset(f"data {number % 2}", "d1", "local", "{}", "s", "p"), [InputTag("mlflow.data.context", "train")]
    )
    client.log_inputs(run_id, [data])
    if number:
        client.set_terminated(run_id, "FAILED" if number == 2 else "FINISHED", 2_000 + number)
    return run_id


def _models(client: MlflowClient, experiment: str, run_id: str) -> None:
    models = [
        client.create_logged_model(experiment, name, run_id, tags={"k": ODD}, params={"p": "1"}, model_type="t")
        for name in ("alpha", "beta", "deleted")
    ]
    for step in range(700):
        if step % 100 == 0:
            batch = [Metric("acc", at / 700, at, at, models[0].model_id) for at in range(step, step + 100)]
            client.log_batch(run_id, batch)
    data = Dataset("eval", "e1", "local", "{}")
    client.log_inputs(run_id, [DatasetInput(data, [])], [LoggedModelInput(models[1].model_id)])
    client.log_metric(run_id, "f1", 0.5, 9, 1, dataset_name="eval", dataset_digest="e1", model_id=models[1].model_id)
    client.log_outputs(run_id, [LoggedModelOutput(models[0].model_id, 3)])
    client.finalize_logged_model(models[0].model_id, "READY")
    client.delete_logged_model(models[2].model_id)


def _traces(client: MlflowClient, experiment: str, run_id: str) -> list[str]:
    mlflow.set_experiment(experiment_id=experiment)

    @mlflow.trace(span_type=SpanType.LLM)
    def inner(text: str) -> str:
        span = mlflow.get_current_active_span()
        assert span is not None
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        return text.upper()

    @mlflow.trace
    def outer(text: str, *, fails: bool) -> str:
        mlflow.update_current_trace(tags={"kind": ODD}, metadata={"mlflow.trace.session": "s-1", "extra": "m"})
        if fails:
            raise ValueError("no")
        return inner(text)

    ids = []
    for number in range(4):
        with contextlib.suppress(ValueError):
            outer(f"question {number} {ODD}", fails=number == 3)
        ids.append(str(mlflow.get_last_active_trace_id()))
    mlflow.flush_trace_async_logging()
    human = AssessmentSource("HUMAN", "me")
    feedback = mlflow.log_feedback(trace_id=ids[0], name="good", value=True, source=human, rationale=ODD)
    mlflow.override_feedback(trace_id=ids[0], assessment_id=str(feedback.assessment_id), value=False, source=human)
    mlflow.log_expectation(trace_id=ids[1], name="answer", value={"a": [1, 2.5, None]}, source=human)
    client.link_traces_to_run(ids[:2], run_id)
    return ids


def _genai(client: MlflowClient, experiment: str, trace_ids: list[str]) -> None:
    from mlflow.genai import create_dataset

    dataset = create_dataset(name="questions", experiment_id=[experiment, "0"], tags={"of": "tests"})
    dataset.merge_records([{"inputs": {"q": f"{n} {ODD}"}, "expectations": {"a": n}} for n in range(7)])
    store: Any = client._tracking_client.store
    for version in range(2):
        store.register_scorer(experiment, "scorer", f'{{"name": "scorer", "n": {version}}}')
    if hasattr(store, "create_issue"):
        store.create_issue(experiment, "slow", f"It is {ODD}", root_causes=["a"], categories=["c"])
    if hasattr(store, "create_review_queue"):
        from mlflow.genai.label_schemas.label_schemas import InputCategorical

        schema = store.create_label_schema(
            experiment, name="Fine?", type="feedback", input=InputCategorical(options=["yes", "no"])
        )
        queue = store.create_review_queue(
            experiment, name="Queue", queue_type="custom", users=["ann"], schema_ids=[schema.schema_id]
        )
        store.add_items_to_review_queue(queue.queue_id, item_ids=trace_ids[:2])
        store.set_review_queue_item_status(queue.queue_id, item_id=trace_ids[0], status="complete", completed_by="ann")


if __name__ == "__main__":
    fill(*sys.argv[1:])
