"""Searches for traces find what MLflow's own store finds, in its order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Expectation, Feedback
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.abstract_store import AbstractStore
from trace_samples import START, info, new_trace_id, span, usage

TEXTS = ["alpha", "Alpha", "beta 50%", "a_b", "it's", 'say "hi"', "läßt Σας", "x*y?", "back\\slash", ""]
NAMES = ["agent", "Agent", "tool_1", "läßt"]


@pytest.fixture(scope="module")
def twins(prefixes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """This store and MLflow's own, with the same traces in the same experiments."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
    from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store

    folder = tmp_path_factory.mktemp("twins")
    tested = ElasticsearchTrackingStore(prefixes.fresh_uri(), (folder / "tested").as_uri())
    own = sqlite_tracking_store(folder / "own")
    ids = [new_trace_id() for _ in range(24)]
    for store in (own, tested):
        _fill(store, ids)
    yield own, tested
    dispose(own)


def _fill(store: Any, ids: list[str]) -> None:
    experiments = [store.create_experiment(name) for name in ("one", "two")]
    for i, trace_id in enumerate(ids):
        experiment, at = experiments[i % 5 == 4], START + i * 40_000
        tags = {"t": TEXTS[i % len(TEXTS)], "n": str(i)} if i % 4 else {"other": "x", "t.dotted key": "1"}
        if i % 3:
            tags["mlflow.traceName"] = NAMES[i % len(NAMES)]
        metadata = {"mlflow.trace.session": f"s{i % 3}"} if i % 2 else {"who": TEXTS[(i * 3) % len(TEXTS)]}
        if i % 6 == 1:
            metadata["mlflow.trace.tokenUsage"] = json.dumps(usage(i, 2))
            metadata["mlflow.sourceRun"] = f"run{i % 4}"
        state = ("OK", "ERROR", "IN_PROGRESS")[i % 3]
        store.start_trace(
            info(trace_id, experiment, at, None if i % 7 == 6 else i * 10, state, tags, metadata,
                 client_request_id=f"c{i}" if i % 2 else None)
        )  # fmt: skip
        if i % 6 != 5:
            _add_spans(store, experiment, trace_id, i, at)
    _assess(store, ids)
    store.link_traces_to_run(ids[3:6], "run1")


def _add_spans(store: Any, experiment: str, trace_id: str, i: int, at: int) -> None:
    text = TEXTS[i % len(TEXTS)]
    store.log_spans(experiment, [
        span(trace_id, 1, None, NAMES[i % len(NAMES)], "AGENT", ("OK", "ERROR")[i % 2], at),
        span(trace_id, 2, 1, "call", ("LLM", "TOOL")[i % 2], ("OK", "UNSET", "ERROR")[i % 3], at + 1,
             mlflow__spanInputs={"question": text, "n": i}, model=f"model-{i % 3}"),
        span(trace_id, 3, 2, "läßt", "LLM", "OK", at - 15_000 if i % 8 == 0 else at + 2,
             mlflow__spanOutputs=f"answer {i} to {text}", temperature=i),
    ])  # fmt: skip


def _assess(store: Any, ids: list[str]) -> None:
    values: list[Any] = [True, "yes", "no", 0.25, 3, ["a"], {"k": 1}, 'say "hi"', -2.5, float("inf")]
    for i, trace_id in enumerate(ids[:20]):
        session = {"mlflow.trace.session": f"s{i % 3}"} if i in (3, 13) else None
        made = store.create_assessment(
            Feedback(name=("good", "Good one")[i % 2], value=values[i % 10], trace_id=trace_id, metadata=session)
        )
        if i % 4 == 0:
            store.create_assessment(
                Feedback(name="good", value="better", trace_id=trace_id, overrides=made.assessment_id)
            )
        if i % 5 == 0:
            store.create_assessment(Expectation(name="good", value=i, trace_id=trace_id))


FILTERS = """
status = 'OK'
status != 'OK'
status IN ('OK', 'ERROR')
status NOT IN ('OK')
attributes.status LIKE '%R%'
request_id LIKE 'tr-%'
client_request_id = 'c3'
client_request_id != 'c3'
client_request_id ILIKE 'C1%'
client_request_id RLIKE '^c[13]$'
timestamp_ms > 1700000200000
timestamp_ms >= 1700000200000 and timestamp_ms < 1700000400000
execution_time_ms = 30
execution_time_ms != 30
execution_time > 95.5
end_time >= 1700000200050
trace.name = 'agent'
trace.name != 'agent'
name LIKE 'A%'
name ILIKE 'A%'
trace.name RLIKE '[aA]g'
tags.t = 'alpha'
tags.t != 'alpha'
tags.t LIKE '%50\\%%'
tags.t LIKE '%50%'
tags.t LIKE 'a_b'
tags.t LIKE '%*y?'
tags.t LIKE '%k\\s%'
tags.t = ''
tags.t LIKE ''
tags.t LIKE '%'
tags.t ILIKE '%ALPHA%'
tags.t ILIKE 'LÄSST%'
tags.t RLIKE 'a|b'
tags.t = 'say "hi"'
tags.`t.dotted key` = '1'
tags.missing = '1'
tags.missing != '1'
metadata.who = 'alpha'
metadata.who != 'alpha'
metadata.who LIKE '%a%'
metadata.`mlflow.trace.session` = 's1'
metadata.`mlflow.trace.session` != 's1'
metadata.`mlflow.trace.session` LIKE 's%'
run_id = 'run1'
run_id != 'run1'
metadata.`mlflow.sourceRun` = 'run3' and tags.n = '7'
span.name = 'agent'
span.name != 'agent'
span.name IN ('agent', 'call')
span.name NOT IN ('agent', 'call', 'läßt')
span.name LIKE 'a%'
span.name ILIKE 'A%'
span.name RLIKE '_\\d$'
span.type = 'TOOL'
span.type != 'LLM'
span.status = 'ERROR'
span.status != 'OK'
span.type = 'LLM' and span.status = 'ERROR'
span.type = 'AGENT' and span.status = 'ERROR' and span.name = 'Agent'
span.name = 'call' and span.status = 'UNSET'
span.name = 'call' and span.type = 'TOOL'
span.name != 'call' and span.status != 'OK'
span.name LIKE 'c%' and span.type IN ('LLM')
span.type = 'LLM' and timestamp_ms > 1700000300000
span.name = 'läßt' and timestamp_ms >= 1700000320000
span.name = 'läßt' and span.status = 'OK' and timestamp_ms >= 1700000320000 and timestamp_ms < 1700000360000
trace.text LIKE '%alpha%'
trace.text ILIKE '%ALPHA%'
trace.text LIKE '%answer 3 to%'
trace.text LIKE '%answer % to%Σας%'
trace.text LIKE '%läßt%'
trace.text LIKE '%no such text anywhere%'
trace.text LIKE '%an%'
trace.text LIKE '%a%'
trace.text LIKE '%'
trace.text LIKE 'alpha'
trace.text LIKE '%x*y?%'
trace.text LIKE '%answer _ to%'
trace.text LIKE '%alpha%' and span.type = 'TOOL'
trace.text LIKE '%alpha%' and trace.text LIKE '%answer%'
trace.text LIKE '%alpha%' and span.name != 'call' and tags.n = '11'
trace.text LIKE '%answer%' and timestamp_ms >= 1700000320000 and timestamp_ms <= 1700000320000
span.attributes.model LIKE '%model-1%'
span.attributes.model ILIKE '%MODEL-1%'
span.attributes.model != 'x'
span.attributes.model = 'model-1'
span.attributes.model RLIKE '^model-[12]$'
span.attributes.model RLIKE 'l-0'
span.attributes.temperature LIKE '%3%' and span.type = 'LLM'
span.attributes.`mlflow.spanInputs` LIKE '%question%'
""".strip().splitlines()
NEWER_FILTERS = """
tags.t IS NULL
tags.t IS NOT NULL
trace.name IS NULL
trace.name IS NOT NULL
metadata.who IS NULL
metadata.`mlflow.trace.session` IS NULL
metadata.`mlflow.trace.session` IS NOT NULL
metadata.`mlflow.trace.tokenUsage` IS NOT NULL
metadata.`mlflow.trace.tokenUsage` IS NULL
metadata.`mlflow.trace.tokenUsage` = '{"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}'
metadata.`mlflow.trace.tokenUsage` != '{"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}'
metadata.`mlflow.trace.tokenUsage` = '{"input_tokens": 7}'
feedback.good = 'yes'
feedback.good != 'yes'
feedback.good = 'true'
feedback.good LIKE '%e%'
feedback.good RLIKE 'e'
feedback.good IS NULL
feedback.good IS NOT NULL
feedback.`Good one` > 0
feedback.good >= -3
feedback.good < 1
feedback.`Good one` = 'no'
feedback.`Good one` IS NOT NULL
feedback.`Good one` ILIKE '%H%'
feedback.`Good one` != '3'
expectation.good >= 10
expectation.good = '5'
expectation.good IS NULL
feedback.good = 'better' and expectation.good > 3
issue.id = 'iss-1'
""".strip().splitlines()
ORDERS: list[list[str]] = [
    [], ["timestamp_ms ASC"], ["timestamp_ms DESC"], ["execution_time_ms"], ["execution_time_ms DESC"], ["status DESC"],
    ["request_id DESC"], ["tags.t ASC"], ["tags.t DESC"], ["metadata.who"], ["metadata.who DESC"], ["name"],
    ["name DESC", "timestamp_ms"], ["experiment_id DESC", "tags.n"], ["tags.missing"], ["run_id DESC"],
    ["metadata.`mlflow.trace.session` DESC"], ["tags.`t.dotted key`"],
]  # fmt: skip


def newer() -> bool:
    """Whether MLflow's own store has the newer filters with today's meaning."""
    return hasattr(AbstractStore, "archive_traces")


def differs_before(filter_string: str) -> bool:
    """Whether MLflow's own stores of before 3.17 answer otherwise, in the ways that were mended since."""
    several = "span." in filter_string and " and " in filter_string
    escaped = not filter_string.isascii() and "text" in filter_string
    return several or escaped or "attributes.`" in filter_string


def found(store: Any, filter_string: str | None, order: list[str] | None = None, size: int = 100) -> Any:
    """The ids that a search finds, or the code of its error."""
    try:
        return [t.trace_id for t in store.search_traces(["1", "2"], filter_string, size, order or [])[0]]
    except MlflowException as exc:
        return exc.error_code


def same(own: Any, tested: Any, filter_string: str | None, order: list[str] | None = None) -> None:
    """Both stores find the same, in the same order; an error has the same code where MLflow promises one."""
    expected = found(own, filter_string, order)
    got = found(tested, filter_string, order)
    if expected in ("INTERNAL_ERROR", "BAD_REQUEST"):
        assert isinstance(got, str), f"{filter_string!r} must be refused, found {len(got)} traces"
    else:
        assert got == expected, f"{filter_string!r} {order}"


@pytest.mark.parametrize("filter_string", FILTERS + NEWER_FILTERS)
def test_a_filter_finds_the_same_traces(twins: Any, filter_string: str) -> None:
    """Each kind of comparison has the meaning that MLflow's own store gives it."""
    if filter_string in NEWER_FILTERS and not newer():
        pytest.skip("this MLflow's own store does not know the filter, or knows it otherwise")
    if differs_before(filter_string) and not newer():
        pytest.skip("this MLflow's own store finds otherwise: several spans together, no backticks, escaped texts")
    same(*twins, filter_string)


@pytest.mark.parametrize("order", ORDERS, ids=", ".join)
def test_an_order_is_the_same(twins: Any, order: list[str]) -> None:
    """Orders by attributes, tags and metadata are the same; what has no value comes last."""
    same(*twins, None, order)
    same(*twins, "status != 'IN_PROGRESS'", order)


@pytest.mark.parametrize("filter_string", [
    "status > 'x'", "nonsense", "tags.t > '1'", "timestamp_ms LIKE 'x'", "span.duration = '1'", "trace.text = 'x'",
    "span.attributes. = 'x'", "feedback.good IN ('x')", "metadata.x > '1'", "timestamp_ms > 'abc'", "tags.t RLIKE '('",
])  # fmt: skip
def test_what_the_grammar_does_not_know_is_refused(twins: Any, filter_string: str) -> None:
    """A bad filter is an `MlflowException`, never a crash."""
    assert isinstance(found(twins[1], filter_string), str)


def test_pages_hold_what_one_page_holds(twins: Any) -> None:
    """Pages of any size and order join to the whole; filters that are checked span by span included."""
    _, tested = twins
    for filter_string in (
        None,
        "trace.text LIKE '%a%'",
        "span.name RLIKE 'a' and span.status != 'OK'",
        "tags.t RLIKE 'a'",
    ):
        for order in ([], ["tags.t DESC"], ["metadata.who"], ["execution_time_ms DESC"]):
            whole = found(tested, filter_string, order)
            joined: list[str] = []
            token = None
            for _ in range(100):
                page, token = tested.search_traces(["1", "2"], filter_string, 3, order, token)
                joined += [t.trace_id for t in page]
                if token is None:
                    break
            assert joined == whole


def test_a_token_of_another_search_is_refused(twins: Any) -> None:
    """A page token belongs to its filter and order."""
    _, tested = twins
    _, token = tested.search_traces(["1"], None, 2)
    with pytest.raises(MlflowException, match="another search"):
        tested.search_traces(["1"], "status = 'OK'", 2, page_token=token)


@pytest.mark.parametrize("many", [3, 100])
def test_candidates_beyond_the_first_few_are_found(twins: Any, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """Where many spans are candidates the traces are gone through in order, with the same result."""
    from mlflow_elasticsearch_tracking import trace_search

    monkeypatch.setattr(trace_search, "FEW", 2)
    monkeypatch.setattr(trace_search, "MANY", many)
    for filter_string in FILTERS:
        if ("text" in filter_string or "attributes." in filter_string) and (
            newer() or not differs_before(filter_string)
        ):
            same(*twins, filter_string)
            for size in (1, 3):
                assert found(twins[1], filter_string, ["tags.t"], size) == found(
                    twins[0], filter_string, ["tags.t"], size
                )


FIELDS = st.sampled_from(["name", "type", "status"])
NAMED = st.sampled_from(["OK", "ERROR", "LLM", "call", "agent", "%A%"])
PARTS = st.sampled_from(["alpha", "ALPHA", "to a", "answer 1", "ß", "question", "_3_"])
comparisons = st.one_of(
    st.builds(
        "tags.t {} '{}'".format,
        st.sampled_from(["=", "!=", "LIKE", "ILIKE"]),
        st.sampled_from([*TEXTS[:4], "%a%"]),
    ),
    st.builds("status {} '{}'".format, st.sampled_from(["=", "!="]), st.sampled_from(["OK", "ERROR"])),
    st.builds("timestamp_ms {} {}".format, st.sampled_from(["<", ">", ">="]), st.integers(START, START + 900_000)),
    st.builds("span.{} {} '{}'".format, FIELDS, st.sampled_from(["=", "!=", "LIKE"]), NAMED),
    st.builds("trace.text {} '%{}%'".format, st.sampled_from(["LIKE", "ILIKE"]), PARTS),
    st.builds("feedback.good {}".format, st.sampled_from(["IS NULL", "= 'yes'", "> 0", "!= 'no'", "LIKE '%t%'"])),
)


@given(st.lists(comparisons, min_size=2, max_size=4), st.sampled_from(ORDERS))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_combined_comparisons_find_the_same_traces(twins: Any, clauses: list[str], order: list[str]) -> None:
    """Conjunctions of random comparisons in random orders find the same."""
    if not newer():
        pytest.skip("this MLflow's own store lets several spans meet the conditions together")
    same(*twins, " and ".join(clauses), order)
