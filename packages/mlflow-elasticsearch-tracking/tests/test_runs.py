"""Runs, beside MLflow's own store: names, tags and params of every kind, and what `mlflow gc` asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import (
    AssessmentSource,
    AssessmentSourceType,
    Feedback,
    Metric,
    Param,
    RunStatus,
    RunTag,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracing.constant import AssessmentMetadataKey

from mlflow_elasticsearch_tracking.history_columns import METRICS

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
KEYS = st.text(st.sampled_from('ab/.-_ :é字"*?\\{}\n'), min_size=1, max_size=20)


def new_run(store: Any, tags: Any = (), name: str | None = "run") -> str:
    return str(store.create_run("0", "ada", 5, [RunTag(*tag) for tag in tags], name).info.run_id)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the code of its error."""
    try:
        return call()
    except MlflowException as exc:
        return exc.error_code


def shown(store: Any, run_id: str) -> tuple[Any, ...]:
    run = store.get_run(run_id)
    info = run.info
    return (
        (info.run_name, info.status, info.start_time, info.end_time, info.lifecycle_stage, info.user_id),
        run.data.params,
        run.data.tags,
        run.data.metrics,
    )


@given(
    entries=st.lists(st.tuples(st.sampled_from(["param", "tag", "metric"]), KEYS, TEXTS), max_size=12),
    batched=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_logged_is_read_back_as_from_mlflows_own_store(
    store: Any, own: Any, entries: list[tuple[str, str, str]], batched: bool
) -> None:
    """Any key and value, quotes, wildcards, line breaks and all: accepted or refused alike, and kept alike."""
    answers = []
    for each in (store, own):
        run_id = new_run(each)
        params = [Param(key, text) for kind, key, text in entries if kind == "param"]
        tags = [RunTag(key, text) for kind, key, text in entries if kind == "tag"]
        metrics = [Metric(key, len(text), 1, len(text)) for kind, key, text in entries if kind == "metric"]
        if batched:
            found = [outcome(lambda: each.log_batch(run_id, metrics, params, tags))]  # noqa: B023
        else:
            calls = [*((each.log_param, p) for p in params), *((each.set_tag, t) for t in tags)]
            calls += [(each.log_metric, m) for m in metrics]
            found = [outcome(lambda: call(run_id, what) and None) for call, what in calls]  # noqa: B023
        answers.append((found, shown(each, run_id)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ([], "named"),
        ([("mlflow.runName", "tagged")], None),
        ([("mlflow.runName", "tagged")], "tagged"),
        ([("mlflow.runName", "tagged")], "other"),
        ([("mlflow.runName", "")], "named"),
        ([("a", "1"), ("a", "2")], "named"),
        ([("k", "x" * 8_000), ("größer", "ü")], "n" * 250),
    ],
)
def test_runs_are_made_as_in_mlflows_own_store(
    store: Any, own: Any, tags: list[tuple[str, str]], name: str | None
) -> None:
    """Name and tags of a new run, and what contradicts itself."""
    answers = [outcome(lambda: shown(each, new_run(each, tags, name))) for each in (store, own)]  # noqa: B023
    assert answers[0] == answers[1]


def test_run_info_is_updated_as_in_mlflows_own_store(store: Any, own: Any) -> None:
    """Each field alone, an empty name, and the name by its tag."""
    updates: list[Callable[[Any, str], Any]] = [
        lambda each, run: each.update_run_info(run, RunStatus.FINISHED, None, None).status,
        lambda each, run: each.update_run_info(run, None, 7, None).end_time,
        lambda each, run: each.update_run_info(run, None, None, "").run_name,
        lambda each, run: each.update_run_info(run, RunStatus.RUNNING, 0, "new").run_name,
        lambda each, run: each.set_tag(run, RunTag("mlflow.runName", "")),
        lambda each, run: each.set_tag(run, RunTag("mlflow.runName", "by tag")),
        lambda each, run: each.log_batch(run, [], [], [RunTag("mlflow.runName", "x"), RunTag("mlflow.runName", "y")]),
        lambda each, run: each.delete_tag(run, "mlflow.runName"),
        lambda each, run: each.update_run_info(run, None, None, "again").run_name,
    ]
    runs = [(each, new_run(each)) for each in (store, own)]
    for update in updates:
        ours, theirs = ((outcome(lambda: update(*pair)), shown(*pair)) for pair in runs)  # noqa: B023
        assert ours == theirs


def test_models_are_recorded_one_after_the_other(store: Any, own: Any) -> None:
    """The tag lists every model that the run has logged; what is no model is refused."""
    for each in (store, own):
        run_id = new_run(each)
        for path in ("a", "b"):
            each.record_logged_model(run_id, Model(artifact_path=path, run_id=run_id))
        listed = json.loads(each.get_run(run_id).data.tags["mlflow.log-model.history"])
        assert [model["artifact_path"] for model in listed] == ["a", "b"]
        with pytest.raises(TypeError):
            each.record_logged_model(run_id, "no model")


def test_half_a_surrogate_pair_is_refused(store: Any) -> None:
    """What is no valid Unicode cannot be stored, and the answer says so."""
    run_id = new_run(store)
    for call in (
        lambda: store.set_tag(run_id, RunTag("t", "\ud800")),
        lambda: store.log_batch(run_id, [], [Param("p", "\udfff")], []),
        lambda: new_run(store, [], "\ud800"),
    ):
        assert outcome(call) == "INVALID_PARAMETER_VALUE"
    assert store.get_run(run_id).data.tags == {"mlflow.runName": "run"}


def test_the_longest_keys_and_values_are_kept(store: Any) -> None:
    """Four bytes for each of 250 and 8,000 characters: more than one term of the index holds."""
    run_id = new_run(store)
    key, value = "字" * 250, "𝄞" * 8_000
    store.log_batch(run_id, [Metric(key, 1.0, 1, 1)], [Param(key, value[:6_000])], [RunTag(key, value)])
    data = store.get_run(run_id).data
    assert (data.metrics[key], data.params[key], data.tags[key]) == (1.0, value[:6_000], value)
    assert [m.value for m in store.get_metric_history(run_id, key)] == [1.0]
    huge = new_run(store, [("k" * 40_000, "v"), ("t", "x" * 200_000)], "n" * 40_000)
    assert len(store.get_run(huge).data.tags) == 3


def test_gc_deletes_a_run_and_its_points(store: Any) -> None:
    """A long history goes too, and another run's stays."""
    gone, kept = new_run(store), new_run(store)
    for run_id in (gone, kept):
        for first in (0, 1_000, 2_000):
            store.log_batch(run_id, [Metric("m", 1.0, 1, first + n) for n in range(1_000)], [], [])
    store.delete_run(gone)
    assert store._get_deleted_runs() == [gone]
    assert store._get_deleted_runs(older_than=10**9) == []
    store._hard_delete_run(gone)
    assert store._get_deleted_runs() == []
    assert list(store.get_metric_history(gone, "m")) == []
    assert len(store.get_metric_history(kept, "m")) == 3_000
    assert outcome(lambda: store._hard_delete_run(gone)) == "RESOURCE_DOES_NOT_EXIST"
    left = {hit.source["run_id"] for hit in store.docs.scan(METRICS, {"match_all": {}}, "id", source=["run_id"])}
    assert left == {kept}


def test_metrics_of_a_model_are_logged_to_it_as_well(store: Any) -> None:
    """A metric that names a logged model is a metric of the run and of the model."""
    if not hasattr(Metric("m", 1.0, 1, 1), "model_id"):
        pytest.skip("this MLflow's metrics name no models")
    run_id = new_run(store)
    model = store.create_logged_model("0", "model", run_id)
    store.log_metric(run_id, Metric("one", 1.0, 1, 1, model_id=model.model_id))
    store.log_batch(run_id, [Metric("two", 2.0, 1, 1, model_id=model.model_id), Metric("own", 3.0, 1, 1)], [], [])
    assert store.get_run(run_id).data.metrics == {"one": 1.0, "two": 2.0, "own": 3.0}
    assert {m.key: m.value for m in store.get_logged_model(model.model_id).metrics} == {"one": 1.0, "two": 2.0}


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_the_assessments_that_a_run_made_go_with_it(store: Any, own: Any, what: str) -> None:
    """As MLflow's own store has it since 3.14; those of other runs and of people stay."""
    if not hasattr(AssessmentMetadataKey, "SOURCE_RUN_ID"):
        pytest.skip("in this MLflow no assessment names its run")
    left = []
    for each in (store, own):
        made = each.create_experiment("x")
        gone, kept = (each.create_run(e, "ada", 1, [], "r").info.run_id for e in (made, "0"))
        each.start_trace(TraceInfo(f"tr-{gone}", TraceLocation.from_experiment_id("0"), 1, TraceState.OK))
        source = AssessmentSource(AssessmentSourceType.HUMAN, "ada")
        for name, metadata in (("gone", gone), ("kept", kept), ("bare", None)):
            told = {AssessmentMetadataKey.SOURCE_RUN_ID: metadata} if metadata else None
            each.create_assessment(Feedback(name=name, value=1, source=source, trace_id=f"tr-{gone}", metadata=told))
        each.delete_run(gone) if what == "run" else each.delete_experiment(made)
        left.append(sorted(a.name for a in each.get_trace_info(f"tr-{gone}").assessments))
    assert left[0] == ["bare", "kept"]
    assert left[1] in (["bare", "kept"], ["bare", "gone", "kept"])
