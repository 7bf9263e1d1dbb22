"""Figures over traces, spans and assessments equal those of MLflow's own store."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.entities import Expectation, Feedback
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.abstract_store import AbstractStore
from trace_samples import START, info, new_trace_id, span, usage

from mlflow_elasticsearch_tracking.metric_groups import Group
from mlflow_elasticsearch_tracking.metric_rules import METRICS

pytestmark = pytest.mark.skipif(
    not hasattr(AbstractStore, "archive_traces"), reason="this MLflow's own store has no figures, or fewer"
)
HOUR = 3_600
COSTS = {"input_cost": 0.5, "output_cost": 0.25, "total_cost": 0.75}


@pytest.fixture(scope="module")
def twins(prefixes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """This store and MLflow's own, with the same traces in the same experiments."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
    from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store

    folder = tmp_path_factory.mktemp("twins")
    uri = prefixes.fresh_uri()
    tested = ElasticsearchTrackingStore(uri, (folder / "tested").as_uri())
    prefixes.opened(uri, tested)
    own = sqlite_tracking_store(folder / "own")
    ids = [new_trace_id() for _ in range(30)]
    for store in (own, tested):
        _fill(store, ids)
    yield own, tested
    prefixes.closed(tested)
    dispose(own)


def _fill(store: Any, ids: list[str]) -> None:
    experiments = [store.create_experiment(name) for name in ("one", "two")]
    for i, trace_id in enumerate(ids):
        experiment, at = experiments[i % 10 == 9], START + i * 1_000_000
        metadata = {"who": "ab"[i % 2]}
        metadata |= {"mlflow.trace.session": f"s{i // 4}"} if i % 4 else {}
        metadata |= {"mlflow.trace.tokenUsage": json.dumps(usage(i, i % 5))} if i % 3 else {}
        metadata |= {"mlflow.sourceRun": "run1"} if i % 7 == 0 else {}
        tags = {"t": str(i % 3)} | ({"mlflow.traceName": "näme" if i % 2 else "b"} if i % 5 else {})
        state = ("OK", "ERROR")[i % 2]
        store.start_trace(info(trace_id, experiment, at, None if i % 6 == 5 else i * 7, state, tags, metadata))
        costs = {k: v * i for k, v in COSTS.items()}
        model = {"mlflow.llm.model": f"m{i % 3}", "mlflow.llm.provider": "p"} if i % 4 else {}
        store.log_spans(experiment, [
            span(trace_id, 1, None, "root", "AGENT", at_ms=at, ms=i),
            span(trace_id, 2, 1, "call", "LLM", ("OK", "ERROR")[i % 2], at + 500_000, i * 3 or None,
                 **{"mlflow.llm.cost": costs}, **model),
        ])  # fmt: skip
        store.create_assessment(Feedback("good", i % 3 == 0, trace_id=trace_id))
        store.create_assessment(Feedback("score", i / 7, trace_id=trace_id))
        first = store.create_assessment(Expectation("said", ("yes", "no", "maybe")[i % 3], trace_id=trace_id))
        if i % 5 == 0:
            store.create_assessment(
                Expectation("said", "yes", trace_id=trace_id)
                if i % 2
                else Feedback("said", 2, trace_id=trace_id, overrides=first.assessment_id)
            )
    store.link_traces_to_run(ids[10:13], "run1")


def asked(store: Any, view: str, name: str, kinds: tuple[Any, ...], **more: Any) -> Any:
    """The points as plain data."""
    from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

    percentile = AggregationType.PERCENTILE
    aggregations = [
        MetricAggregation(percentile, kind) if isinstance(kind, float) else MetricAggregation(AggregationType[kind])
        for kind in kinds
    ]
    points = store.query_trace_metrics(["1", "2"], MetricViewType[view], name, aggregations, **more)
    return [(p.dimensions, {k: pytest.approx(float(v)) for k, v in p.values.items()}) for p in points]


def questions() -> Iterator[Any]:
    """Each metric with all that it can be asked."""
    for view, metrics in METRICS.items():
        for name, metric in metrics.items():
            kinds = sorted(metric.aggregations - {"PERCENTILE"})
            yield view, name, (*kinds, *((50.0, 99.0) if "PERCENTILE" in metric.aggregations else ()))


@pytest.mark.parametrize(("view", "name", "kinds"), list(questions()), ids=lambda v: v if isinstance(v, str) else "")
def test_each_metric_has_the_same_figures(twins: Any, view: str, name: str, kinds: tuple[Any, ...]) -> None:
    """All aggregations, grouped by nothing, by each dimension and all of them, and by time."""
    dimensions = METRICS[view][name].dimensions
    within = {"time_interval_seconds": HOUR, "start_time_ms": START + 5_500_000, "end_time_ms": START + 20_000_000}
    for groups in ([], *([d] for d in dimensions), list(dimensions)):
        for times in ({}, within, {"start_time_ms": START + 2_000_000}, {"end_time_ms": START + 9_500_000}):
            for some in (kinds, kinds[:1]):
                expected, got = (asked(s, view, name, some, dimensions=groups, **times) for s in twins)
                assert [p[0] for p in got] == [p[0] for p in expected], (groups, times)
                assert got == expected, (groups, times)


@pytest.mark.parametrize("view", list(METRICS))
@pytest.mark.parametrize("filters", [
    ["trace.status = 'OK'"], ["trace.tag.t = '1'"], ["trace.tag.mlflow.traceName = 'b'"], ["trace.metadata.who = 'a'"],
    ["trace.metadata.mlflow.trace.session = 's1'"], ["trace.metadata.mlflow.sourceRun = 'run1'"],
    ["trace.status = 'OK'", "trace.tag.t = '2'"], ["span.name = 'call'"],
    ["span.status = 'ERROR'", "trace.tag.t = '1'"],
    ["span.type = 'LLM'"], ["assessment.name = 'good'"], ["assessment.type = 'feedback'", "trace.status = 'ERROR'"],
    ["trace.tag.t = 'none'"],
])  # fmt: skip
def test_filters_choose_the_same(twins: Any, view: str, filters: list[str]) -> None:
    """Conditions on traces, spans and assessments; those of another view are refused."""
    name = {"TRACES": "trace_count", "SPANS": "span_count", "ASSESSMENTS": "assessment_count"}[view]
    outcomes: list[Any] = []
    for store in twins:
        try:
            outcomes.append(asked(store, view, name, ("COUNT",), filters=filters))
        except MlflowException as exc:
            outcomes.append(exc.error_code)
    assert outcomes[0] == outcomes[1]


def test_groups_are_cut_in_their_order(twins: Any) -> None:
    """`max_results` keeps the first groups."""
    for size in (1, 2, 3):
        expected, got = (
            asked(s, "SPANS", "span_count", ("COUNT",), dimensions=["span_name", "span_status"], max_results=size)
            for s in twins
        )
        assert got == expected
        assert len(got) == size


def test_many_groups_and_traces_are_read_in_steps(twins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers larger than one request join to the same figures."""
    from mlflow_elasticsearch_tracking import trace_metrics, trace_sessions

    for name, small in (("GROUPS", 4), ("STEP", 3), ("VALUES", 2), ("TRACES_AT_ONCE", 3)):
        monkeypatch.setattr(trace_metrics, name, small)
    monkeypatch.setattr(trace_sessions, "SESSIONS", 2)
    within = {"time_interval_seconds": HOUR, "start_time_ms": START, "end_time_ms": START + 10**8}
    for view, name, kinds in (
        ("TRACES", "latency", ("AVG", 50.0)),
        ("TRACES", "session_count", ("COUNT",)),
        ("SPANS", "latency", ("MAX", 90.0)),
        ("SPANS", "span_count", ("COUNT",)),
    ):
        expected, got = (asked(s, view, name, kinds, **within) for s in twins)
        assert got == expected
    same_sessions(twins, [0, START + 11_000_000])


@pytest.mark.parametrize("wrong", [
    ("TRACES", "nothing", ("COUNT",), {}), ("TRACES", "latency", ("SUM",), {}), ("TRACES", "trace_count", ("AVG",), {}),
    ("SPANS", "latency", ("AVG",), {"dimensions": ["span_type"]}),
    ("TRACES", "trace_count", ("COUNT",), {"time_interval_seconds": 60}),
    ("TRACES", "trace_count", ("COUNT",), {"filters": ["trace.status != 'OK'"]}),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(twins: Any, wrong: Any) -> None:
    """With the code of MLflow's own store."""
    *question, more = wrong
    for store in twins:
        with pytest.raises(MlflowException) as caught:
            asked(store, *question, **more)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def same_sessions(twins: Any, bounds: list[int]) -> None:
    """Completed sessions in windows between the bounds, with and without filters, are the same."""
    for low, high in itertools.combinations(bounds, 2):
        for filter_string in (
            None,
            "tags.t = '1'",
            "status = 'OK'",
            "span.name RLIKE 'c' and trace.text LIKE '%root%'",
        ):
            for most in (None, 2):
                expected, got = (s.find_completed_sessions("1", low, high, most, filter_string) for s in twins)
                assert got == expected, (low, high, filter_string)


def test_completed_sessions_are_the_same(twins: Any) -> None:
    """Sessions by their last trace, filtered by their first."""
    same_sessions(twins, [0, START + 3_000_000, START + 7_100_000, 2**60])
    assert twins[1].find_completed_sessions("1", 0, 2**60)


@pytest.mark.parametrize(("one", "two", "base"), [
    ("tags.t = '1'", "status = 'OK'", None), ("tags.t = '1'", "status = 'OK'", "metadata.who = 'a'"),
    ("span.status = 'ERROR'", "span.name = 'call'", None), ("trace.text LIKE '%call%'", "tags.t RLIKE '[12]'", None),
    ("trace.text LIKE '%nothing%'", "status = 'OK'", None), ("tags.t = '0'", "tags.t = '1'", "timestamp_ms > 0"),
])  # fmt: skip
def test_correlations_are_the_same(twins: Any, one: str, two: str, base: str | None) -> None:
    """Counts and mutual information of two filters."""
    expected, got = (s.calculate_trace_filter_correlation(["1", "2"], one, two, base) for s in twins)
    for name in ("filter1_count", "filter2_count", "joint_count", "total_count"):
        assert getattr(got, name) == getattr(expected, name), name
    assert (math.isnan(got.npmi) and math.isnan(expected.npmi)) or got.npmi == pytest.approx(expected.npmi)


def test_percentiles_lie_between_the_values_next_to_them() -> None:
    """As PERCENTILE_CONT of SQL."""
    group = Group()
    for value in (1.0, 2.0, 4.0):
        group.add(value)
    group.add(8.0, times=2)
    assert [group.aggregated("PERCENTILE", p) for p in (0.0, 25.0, 50.0, 90.0, 100.0)] == [1, 2, 4, 8, 8]
    assert group.aggregated("PERCENTILE", 30.0) == pytest.approx(2.4)
