"""Traces and spans: written in any order, by anyone, they come to what MLflow's own store makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.entities import Feedback
from mlflow.entities.trace_status import TraceStatus
from mlflow.exceptions import MlflowException, MlflowTracingException
from mlflow.store.tracking.abstract_store import AbstractStore
from trace_samples import START, info, new_trace_id, shown, span, usage

from mlflow_elasticsearch_tracking import span_tree
from mlflow_elasticsearch_tracking.grams import grams, may_match

newest = pytest.mark.skipif(
    not hasattr(AbstractStore, "archive_traces"), reason="this MLflow's own store adds tokens up in another way"
)


def both(own: Any, store: Any, do: Callable[[Any, str], Any]) -> None:
    """Do the same in both stores; what it returns must be the same."""
    expected, got = (do(each, each.create_experiment("both")) for each in (own, store))
    assert got == expected


def code(do: Callable[[], Any]) -> str | None:
    """The code of the error that it raises."""
    try:
        do()
    except MlflowException as exc:
        return str(exc.error_code)
    return None


@newest
@pytest.mark.parametrize("order", ["spans first", "info first", "twice", "spans in two calls", "info between"])
def test_the_order_of_arrival_makes_what_it_makes_in_mlflows_own_store(own: Any, store: Any, order: str) -> None:
    """Info and spans of a trace may come in any order, and again."""
    trace_id = new_trace_id()

    def do(each: Any, experiment: str) -> Any:
        spans = [
            span(trace_id, 1, at_ms=START + 3, ms=50, mlflow__spanInputs="asked", mlflow__spanOutputs="said"),
            span(trace_id, 2, 1, "call", at_ms=START + 1, ms=90, mlflow__chat__tokenUsage=usage(7, 2),
                 session__id="s1", user__id="ada"),
            span(trace_id, 3, 2, "tool", "TOOL", "ERROR", START + 2, None,
                 **{"mlflow.llm.cost": {"input_cost": 0.5, "output_cost": 0.25, "total_cost": 0.75}}),
        ]  # fmt: skip
        start = info(trace_id, experiment, START, 77, tags={"a": "1", "mlflow.traceName": "n"}, metadata={"m": "x"})
        steps: dict[str, list[Any]] = {
            "spans first": [spans, start],
            "info first": [start, spans],
            "twice": [spans, start, spans, start],
            "spans in two calls": [spans[:1], spans[1:]],
            "info between": [spans[2:], start, spans[:2]],
        }
        for step in steps[order]:
            each.log_spans(experiment, step) if isinstance(step, list) else each.start_trace(step)
        trace = each.get_trace(trace_id, allow_partial=True)
        return shown(trace.info), [(s.name, s.span_type, s.inputs, s.end_time_ns) for s in trace.data.spans]

    both(own, store, do)


@newest
def test_reports_of_parents_include_those_of_their_children(own: Any, store: Any) -> None:
    """Tokens count once along a branch, whichever span arrives first."""

    def do(each: Any, experiment: str) -> Any:
        totals = []
        for split in (0, 1, 2, 3, 4):
            trace_id = new_trace_id()
            spans = [
                span(trace_id, 1, None, mlflow__chat__tokenUsage=usage(1, 1)),
                span(trace_id, 2, 1),
                span(trace_id, 3, 2, mlflow__chat__tokenUsage=usage(10, 1)),
                span(trace_id, 4, 9, mlflow__chat__tokenUsage=usage(100, 1, cache_read_input_tokens=4)),
            ]
            for part in (spans[split:], spans[:split]):
                each.log_spans(experiment, part)
            totals.append(json.loads(each.get_trace_info(trace_id).trace_metadata["mlflow.trace.tokenUsage"]))
        return totals

    both(own, store, do)


def test_usage_follows_from_the_set_of_spans() -> None:
    """Any order and repetition of spans come to the same tokens."""
    kind = ("LLM", "OK", "x")
    spans = [(str(i), str(i // 2) if i else None, kind, usage(i, 1) if i % 3 == 0 else None, None) for i in range(40)]
    results = set()
    for seed in range(20):
        shuffled = [*spans, *spans[::7]]
        random.Random(seed).shuffle(shuffled)
        source: dict[str, Any] = {}
        for start in range(0, len(shuffled), 9):
            span_tree.grow(source, shuffled[start : start + 9])
        results.add(json.dumps(span_tree.token_usage(source)))
        assert sorted(span_tree.span_ids(source), key=int) == [str(i) for i in range(40)]
    assert len(results) == 1


def test_a_span_logged_again_replaces_its_former_state(store: Any, experiment: str) -> None:
    """What a span was called before is not found any more."""
    trace_id = new_trace_id()
    store.log_spans(experiment, [span(trace_id, 1, name="draft", status="UNSET", ms=None)])
    store.log_spans(experiment, [span(trace_id, 1, name="final", status="ERROR")])
    found = {name: len(store.search_traces([experiment], f"span.name = '{name}'")[0]) for name in ("draft", "final")}
    assert found == {"draft": 0, "final": 1}
    (trace,) = store.batch_get_traces([trace_id])
    assert [s.name for s in trace.data.spans] == ["final"]
    assert len(store.search_traces([experiment], "trace.text LIKE '%draft%'")[0]) == 0


def test_no_writers_share_is_lost(store: Any, experiment: str) -> None:
    """Threads that log spans of one trace, start it, tag it and assess it at once lose nothing and fail never."""
    trace_id = new_trace_id()
    store.log_spans(experiment, [span(trace_id, 1)])

    def work(number: int) -> None:
        for i in range(4):
            own = 100 + number * 10 + i
            store.log_spans(experiment, [span(trace_id, own, 1, mlflow__chat__tokenUsage=usage(1, 2))])
            store.set_trace_tag(trace_id, f"t{own}", "x")
            store.create_assessment(Feedback(name=f"f{own}", value=True, trace_id=trace_id))
        if number == 3:
            store.start_trace(info(trace_id, experiment))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    trace = store.get_trace(trace_id)
    assert len(trace.data.spans) == 33
    assert json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"]) == usage(32, 64)
    assert len([t for t in trace.info.tags if t.startswith("t1")]) == 32
    assert len(trace.info.assessments) == 32


def test_servers_without_a_common_lock_lose_nothing_either(store: Any, new_store: Callable[..., Any]) -> None:
    """Two servers that write to the same traces at once meet each other by the documents' state alone."""
    from mlflow_plugkit_elasticsearch import Documents

    experiment, ids = store.create_experiment("shared"), [new_trace_id() for _ in range(3)]
    other = new_store(store.uri)
    other.docs = Documents(other.settings)

    def work(number: int) -> None:
        own = (store, other)[number % 2]
        for i in range(5):
            span_id = 1 + number * 5 + i
            reported = [span(t, span_id, None, mlflow__chat__tokenUsage=usage(1, 0)) for t in ids]
            own.log_spans(experiment, reported)
            own.link_traces_to_run(ids, f"run{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    for trace in store.batch_get_traces(ids):
        assert len(trace.data.spans) == 30
        assert json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"])["input_tokens"] == 30
    assert all(len(other.search_traces([experiment], f"run_id = 'run{n}'")[0]) == 3 for n in range(6))


def test_one_call_takes_spans_of_many_traces(store: Any, experiment: str) -> None:
    """A batch over several traces writes and creates all of them."""
    ids = [new_trace_id() for _ in range(30)]
    store.log_spans(experiment, [span(i, n, None if n == 1 else 1, f"s{n}") for i in ids for n in (1, 2, 3)])
    traces = store.batch_get_traces(ids[::-1])
    assert [t.info.trace_id for t in traces] == ids[::-1]
    assert all([s.name for s in t.data.spans] == ["s1", "s2", "s3"] for t in traces)


def test_a_trace_of_many_spans_is_written_and_read_in_bounded_requests(
    store: Any, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request grows with the trace; all spans come back."""
    from mlflow_plugkit_elasticsearch.client import Cluster

    sizes: list[int] = []
    request = Cluster.request

    def measured(self: Any, method: str, path: str, operation: str, body: Any = None, **more: Any) -> Any:
        answer = request(self, method, path, operation, body, **more)
        sizes.append(max(len(body) if isinstance(body, bytes) else 0, len(str(answer.body))))
        return answer

    monkeypatch.setattr(Cluster, "request", measured)
    trace_id = new_trace_id()
    for start in range(0, 3_000, 1_000):
        store.log_spans(
            experiment, [span(trace_id, n + 1, 1 if n else None, f"s{n % 7}") for n in range(start, start + 1_000)]
        )
    assert len(store.get_trace(trace_id).data.spans) == 3_000
    assert max(sizes) < 4_000_000


def test_a_trace_is_not_complete_before_its_announced_spans(
    store: Any, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get_trace` waits for the spans that the statistics announce, then says so; a partial one can be asked for."""
    from mlflow_elasticsearch_tracking import spans as module

    monkeypatch.setattr(module, "WAITS", (0.0, 0.0))
    trace_id = new_trace_id()
    stats = json.dumps({"num_spans": 2})
    store.start_trace(info(trace_id, experiment, metadata={"mlflow.trace.sizeStats": stats}))
    store.log_spans(experiment, [span(trace_id, 1)])
    assert store.batch_get_traces([trace_id]) == []
    assert code(lambda: store.get_trace(trace_id)) == "RESOURCE_DOES_NOT_EXIST"
    assert len(store.get_trace(trace_id, allow_partial=True).data.spans) == 1
    store.log_spans(experiment, [span(trace_id, 2, 1)])
    assert len(store.get_trace(trace_id).data.spans) == 2


def test_spans_that_are_elsewhere_are_not_looked_for_here(store: Any, experiment: str) -> None:
    """A trace whose spans are artifacts tells MLflow's server so, and takes no spans."""
    trace_id = new_trace_id()
    store.start_trace(info(trace_id, experiment, tags={"mlflow.trace.spansLocation": "ARTIFACT_REPO"}))
    with pytest.raises(MlflowTracingException):
        store.batch_get_traces([trace_id])
    assert code(lambda: store.log_spans(experiment, [span(trace_id)])) == "INVALID_STATE"


def test_start_trace_moves_spans_to_its_experiment(store: Any, experiment: str) -> None:
    """Spans that came over another experiment follow their trace."""
    other, trace_id = store.create_experiment("other"), new_trace_id()
    store.log_spans(experiment, [span(trace_id, mlflow__spanInputs="needle")])
    store.start_trace(info(trace_id, other))
    assert [t.trace_id for t in store.search_traces([other], "trace.text LIKE '%needle%'")[0]] == [trace_id]
    assert store.search_traces([experiment])[0] == []


def test_links_are_kept_for_traces_still_to_come(store: Any, experiment: str) -> None:
    """A link to a run may come before the trace; until then there is no such trace."""
    early, late = new_trace_id(), new_trace_id()
    store.link_traces_to_run([early, late], "run1")
    assert code(lambda: store.get_trace_info(early)) == "RESOURCE_DOES_NOT_EXIST"
    assert code(lambda: store.set_trace_tag(early, "a", "b")) == "RESOURCE_DOES_NOT_EXIST"
    store.start_trace(info(early, experiment))
    store.log_spans(experiment, [span(late)])
    assert {t.trace_id for t in store.search_traces([experiment], "run_id = 'run1'")[0]} == {early, late}
    assert {t.trace_id for t in store.search_traces(None, "run_id = 'run1'")[0]} == {early, late}
    store.unlink_traces_from_run([early, new_trace_id()], "run1")
    assert [t.trace_id for t in store.search_traces([experiment], "run_id = 'run1'")[0]] == [late]
    assert (
        code(lambda: store.link_traces_to_run([new_trace_id() for _ in range(101)], "r")) == "INVALID_PARAMETER_VALUE"
    )


def test_deleted_traces_take_their_spans_with_them(store: Any, experiment: str) -> None:
    """The oldest go first, up to the number given; nothing of them is found."""
    ids = [new_trace_id() for _ in range(5)]
    for n, trace_id in enumerate(ids):
        store.log_spans(experiment, [span(trace_id, 1, at_ms=START + n, mlflow__spanInputs="needle")])
    assert store.delete_traces(experiment, max_timestamp_millis=START + 3, max_traces=2) == 2
    left = [t.trace_id for t in store.search_traces([experiment], "trace.text LIKE '%needle%'")[0]]
    assert left == ids[:1:-1]
    assert store.delete_traces(experiment, trace_ids=[*ids[:3], new_trace_id()]) == 1
    assert store.delete_traces(experiment, max_timestamp_millis=2**62) == 2
    from mlflow_elasticsearch_tracking.indices_traces import SPANS

    assert store.docs.count(SPANS, {"match_all": {}}) == 0


def test_gc_deletes_the_traces_of_an_experiment(store: Any, experiment: str) -> None:
    """An experiment that is deleted for good takes its traces with it."""
    trace_id = new_trace_id()
    store.log_spans(experiment, [span(trace_id)])
    store.delete_experiment(experiment)
    store._hard_delete_experiment(experiment)
    assert code(lambda: store.get_trace_info(trace_id)) == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.skipif(not hasattr(AbstractStore, "create_review_queue"), reason="this MLflow has no review queues")
def test_deleted_traces_leave_the_review_queues(store: Any, experiment: str) -> None:
    """Nobody is asked to review a trace that is gone."""
    kept, gone = new_trace_id(), new_trace_id()
    store.log_spans(experiment, [span(kept), span(gone)])
    queue = store.create_review_queue(experiment, name="mine", queue_type="custom")
    store.add_items_to_review_queue(queue.queue_id, item_ids=[kept, gone])
    store.delete_traces(experiment, trace_ids=[gone])
    assert [item.item_id for item in store.list_review_queue_items(queue.queue_id)] == [kept]


def test_tags_of_the_process_and_of_the_trace_come_with_spans(own: Any, store: Any) -> None:
    """OpenTelemetry's resource and MLflow's tags on the root span become tags, the trace's own first."""
    from opentelemetry.sdk.resources import Resource

    trace_id = new_trace_id()

    def do(each: Any, experiment: str) -> Any:
        attributes = {"service.name": "shop", "host.cpus": 4, "telemetry.sdk.name": "x", "mlflow.x": "y", "both": "r"}
        each.log_spans(experiment, [
            span(trace_id, resource=Resource(attributes), **{"mlflow.traceTag.both": "t", "mlflow.traceTag.k": "v"})
        ])  # fmt: skip
        tags = each.get_trace_info(trace_id).tags
        return {k: v for k, v in tags.items() if k != "mlflow.artifactLocation"}

    if not hasattr(AbstractStore, "archive_traces"):
        do(store, store.create_experiment("both"))
        tags = store.get_trace_info(trace_id).tags
        assert (tags["service.name"], tags["both"], tags["k"]) == ("shop", "t", "v")
        return
    both(own, store, do)


def test_the_older_api_starts_and_ends_traces(store: Any, experiment: str) -> None:
    """Clients of before MLflow 3.3 start a trace and end it."""
    begun = store.deprecated_start_trace_v2(experiment, START, {"m": "1"}, {"t": "1", "mlflow.traceName": "n"})
    assert begun.status == TraceStatus.IN_PROGRESS
    ended = store.deprecated_end_trace_v2(begun.request_id, START + 40, TraceStatus.OK, {"m2": "2"}, {"t": "2"})
    assert (ended.execution_time_ms, ended.status, ended.tags["t"]) == (40, TraceStatus.OK, "2")
    assert ended.tags["mlflow.traceName"] == "n"
    assert (
        code(lambda: store.deprecated_end_trace_v2("tr-none", 1, TraceStatus.OK, {}, {})) == "RESOURCE_DOES_NOT_EXIST"
    )


def test_traces_need_an_active_experiment(store: Any, experiment: str) -> None:
    """A deleted experiment takes no new trace, a missing one no spans either."""
    assert code(lambda: store.log_spans("98765", [span(new_trace_id())])) == "RESOURCE_DOES_NOT_EXIST"
    store.delete_experiment(experiment)
    assert code(lambda: store.start_trace(info(new_trace_id(), experiment))) == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "text", ["a\nb", "\x00", "😀 emoji", "a" * 9_000, "*?\\\"'", "%_", "\u2028 \u3000 x", "\u017f K \u0130"]
)
def test_any_text_is_kept_and_found(store: Any, experiment: str, text: str) -> None:
    """Texts of any kind in spans, tags and names come back as they were, and a search for them finds them."""
    trace_id = new_trace_id()
    store.log_spans(experiment, [span(trace_id, name="n" + text, mlflow__spanInputs={"q": text})])
    store.start_trace(info(trace_id, experiment, tags={"k": text}, metadata={"m": text}))
    (trace,) = store.batch_get_traces([trace_id])
    assert trace.data.spans[0].inputs == {"q": text}
    assert (trace.info.tags["k"], trace.info.trace_metadata["m"]) == (text, text)
    if not set(text) & set("\"'\x00"):
        stored = json.dumps(json.dumps({"q": text}, ensure_ascii=False), ensure_ascii=False)[2:-2].replace("%", "_")
        assert len(store.search_traces([experiment], f"tags.k = '{text}'")[0]) == 1
        if '"' not in stored.replace('\\"', ""):
            assert len(store.search_traces([experiment], f"trace.text LIKE '%{stored[-40:]}%'")[0]) == 1


@given(st.text(max_size=60), st.integers(0, 50), st.integers(0, 20))
@example("00\r\x80", 0, 3)
@example("0 \t\x1f\x80", 0, 4)
def test_every_part_of_a_text_may_match_it(text: str, start: int, length: int) -> None:
    """The trigrams asked for a part of a text are among the text's, in any case of letters."""
    whole = "{" + text + '"}'
    terms = grams(whole).split(" ")
    for part in (text[start : start + length], text[start : start + length].upper()):
        if part.casefold() not in whole.casefold() or set(part) & set("%_"):
            continue
        query = may_match("grams", f"%{part}%")
        for each in query.get("bool", {}).get("filter", [query]):
            if "term" in each:
                assert each["term"]["grams"]["value"] in terms
            elif "prefix" in each:
                assert any(term.startswith(each["prefix"]["grams"]["value"]) for term in terms)


def test_missing_traces_are_named_as_such(store: Any) -> None:
    """Reads and changes of what is not there say so, whatever the id looks like."""
    for trace_id in ("tr-none", "", "a/b?c", "ü" * 300):
        assert code(lambda: store.get_trace_info(trace_id)) == "RESOURCE_DOES_NOT_EXIST"  # noqa: B023 # called at once
        assert code(lambda: store.set_trace_tag(trace_id, "k", "v")) == "RESOURCE_DOES_NOT_EXIST"  # noqa: B023
        assert code(lambda: store.delete_trace_tag(trace_id, "k")) == "RESOURCE_DOES_NOT_EXIST"  # noqa: B023
    assert store.batch_get_traces(["tr-none"]) == []
    assert store.batch_get_trace_infos([]) == []


@newest
@pytest.mark.parametrize("user", [5, 2.5, "ada", '"ada"'])
def test_a_user_of_any_type_is_kept_as_text(own: Any, store: Any, user: Any) -> None:
    """OpenTelemetry sends numbers, too; a span is not lost for that."""

    def do(each: Any, experiment: str) -> Any:
        trace_id = new_trace_id()
        each.log_spans(experiment, [span(trace_id, 1, raw={"user.id": user})])
        return each.get_trace_info(trace_id).trace_metadata.get("mlflow.trace.user")

    both(own, store, do)


@newest
def test_spans_without_a_type_meet_no_condition_on_types(own: Any, store: Any) -> None:
    """As NULL does in SQL."""
    from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

    def do(each: Any, experiment: str) -> Any:
        mixed, untyped = new_trace_id(), new_trace_id()
        each.log_spans(experiment, [span(mixed, 1, kind=None), span(mixed, 2, 1, "call", "TOOL")])
        each.log_spans(experiment, [span(untyped, 1, kind=None)])
        found = {}
        for condition in (
            "span.type != 'TOOL'", "span.type NOT IN ('TOOL')", "span.type = ''", "span.type IN ('')",
            "span.type ILIKE ''", "span.type LIKE '%'", "span.type LIKE 'T%'", "span.type != 'X'",
            "span.type != 'X' AND span.name = 'root'", "span.type = '' AND span.name = 'root'",
            "span.type != 'X' AND trace.text LIKE '%root%'", "span.name = 'root'",
        ):  # fmt: skip
            traces, _ = each.search_traces(locations=[experiment], filter_string=condition)
            found[condition] = sorted([mixed, untyped].index(trace.trace_id) for trace in traces)
        counts = each.query_trace_metrics(
            [experiment], MetricViewType.SPANS, "span_count", [MetricAggregation(AggregationType.COUNT)],
            dimensions=["span_type", "span_type"],
        )  # fmt: skip
        return found, [(point.dimensions, point.values) for point in counts]

    both(own, store, do)


def test_tags_without_a_value_are_kept_and_a_broken_order_is_refused(own: Any, store: Any) -> None:
    def do(each: Any, experiment: str) -> Any:
        trace_id = new_trace_id()
        each.start_trace(info(trace_id, experiment, START, 7, tags={"a": None}))
        each.set_trace_tag(trace_id, "b", None)
        return {key: each.get_trace_info(trace_id).tags[key] for key in ("a", "b")}

    both(own, store, do)
    assert code(lambda: store.search_traces(["0"], order_by=['tag.`q"uo`'])) == "INVALID_PARAMETER_VALUE"
