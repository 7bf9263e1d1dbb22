"""Filters and orders as queries and sorts: nothing that a user writes becomes a field's name or query text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.filters import (
    Clause,
    any_clause,
    conjunction,
    experiment_filter,
    key_clause,
    metric_clause,
    number_is_one_of,
    run_filter,
    text_clause,
)
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS, RUNS
from mlflow_elasticsearch_tracking.ordering import experiment_order, run_order
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, MATCH_NONE

FIELDS = {*RUNS.properties, *EXPERIMENTS.properties}
#: The only queries that the compilers make, and what stands directly in each.
LEAVES = {"term", "terms", "range", "prefix", "wildcard", "regexp", "exists"}
#: What a key may look like as a part of a field's name: no dot, no wildcard, no control character.
COLUMN = re.compile(r"(metrics|nan_metrics|params|tags)\.[^.*\x00-\x1f]+")

#: What tries to leave its place: quotes, Lucene's and JSON's syntax, names of fields, control characters.
WEAPONS = (
    *("*", "?", "\\", '"', "'", "{", "}", "[", "]", ":", ".", "%", "_", "\x00", "\x01", "\n", "AND", "OR", "_id"),
    *("experiment_id", "script", '"}}', "()", "/.*/", "~", "<1-9>", "&&", "#", "@", "\ufffe", "é", "😀"),
)
nasty = st.text(max_size=30) | st.lists(st.sampled_from(WEAPONS), max_size=8).map("".join)
text_comparators = st.sampled_from(["=", "!=", "LIKE", "ILIKE"])


def leaves(query: Any) -> Iterator[tuple[str, str, Any]]:
    """The kind, the field and the arguments of every query in a query of `bool`s."""
    ((kind, body),) = query.items()
    if kind == "bool":
        assert set(body) <= {"filter", "should", "must_not", "minimum_should_match"}
        for part in ("filter", "should", "must_not"):
            for one in body.get(part, ()):
                yield from leaves(one)
    elif kind in ("match_all", "match_none"):
        assert body == {}
    else:
        assert kind in LEAVES
        ((field, arguments),) = body.items()
        yield kind, arguments if kind == "exists" else field, arguments


def check_fields(clause: Clause) -> None:
    """Only fields that the mapping has are asked, and the query is JSON."""
    assert {field for _, field, _ in leaves(clause.query)} <= FIELDS
    orjson.dumps(clause.query)


@given(key=nasty, value=nasty, comparator=text_comparators, bare=st.booleans())
def test_keys_and_values_of_params_and_tags_stay_values(key: str, value: str, comparator: str, bare: bool) -> None:
    """Whatever they hold, the field is the same, and a term begins with the key."""
    clause = key_clause("tag_tokens", comparator, key, value, lambda source: None, bare_keys=bare)
    check_fields(clause)
    for kind, _, arguments in leaves(clause.query):
        if kind in ("term", "prefix"):
            assert arguments["value"].partition("\x00")[0] == key.partition("\x00")[0]


@given(value=nasty, comparator=text_comparators)
def test_values_of_attributes_stay_values(value: str, comparator: str) -> None:
    """Whatever they hold."""
    check_fields(text_clause("run_name", comparator, value, lambda source: None))


@given(key=nasty, value=st.floats(allow_nan=False), comparator=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
def test_keys_of_metrics_become_digests(key: str, value: float, comparator: str) -> None:
    """Of a metric's key, only hexadecimal digits reach the query."""
    clause = metric_clause("metric_points", comparator, key, value)
    check_fields(clause)
    for _, _, arguments in leaves(clause.query):
        assert all(re.fullmatch("([0-9a-f]{4}:){7}[0-9a-f]{4}", address) for address in arguments.values())


@given(values=st.lists(nasty, min_size=1, max_size=4), comparator=st.sampled_from(["=", "!=", "LIKE", "IN", "NOT IN"]))
def test_values_of_datasets_stay_values(values: list[str], comparator: str) -> None:
    """Whatever they hold."""
    value = tuple(values) if comparator.endswith("IN") else values[0]
    check_fields(any_clause("dataset_tokens", comparator, "name", value, lambda source: []))


@given(filter_string=st.text(max_size=60) | st.builds("tags.`{}` = '{}' AND params.{} LIKE '{}'".format, *[nasty] * 4))
def test_any_text_is_a_filter_or_refused(filter_string: str) -> None:
    """A filter is compiled or refused with MLflow's error; nothing else happens."""
    refused, clauses = None, []
    try:
        clauses = run_filter(filter_string)
    except MlflowException as exc:
        refused = exc.error_code
    assert refused in (None, "INVALID_PARAMETER_VALUE")
    for clause in clauses:
        check_fields(clause)


@given(key=nasty, direction=st.sampled_from(["ASC", "DESC"]), kind=st.sampled_from(["metrics", "params", "tags"]))
def test_keys_in_orders_are_encoded(key: str, direction: str, kind: str) -> None:
    """A key is one part of a field's name, whatever it holds; the order ends with the run id."""
    try:
        sort = run_order([f"{kind}.`{key}` {direction}"])
    except (MlflowException, ValueError, IndexError):  # MLflow's own parser lets the latter two through
        return
    columns = [name for level in sort for name in level]
    assert columns[-2:] == ["start_time", "run_id"]
    assert all(COLUMN.fullmatch(name) for name in columns[:-2])


class TestWhatIsAsked:
    """Some queries as they are sent."""

    def test_a_unique_value_is_one_term(self) -> None:
        """Nothing is cheaper."""
        (clause,) = run_filter("tags.t = 'x'")
        assert clause.query == {"term": {"tag_tokens": {"value": "t\x00x"}}}

    def test_neighbours_become_ranges(self) -> None:
        """A list of fifty thousand ids is two ranges; a few ids are terms."""
        query = number_is_one_of("experiment_number", [*range(30_000), *range(40_000, 60_000), 70_000])
        assert len(orjson.dumps(query)) < 400
        assert number_is_one_of("number", [1, 3]) == {"terms": {"number": [1, 3]}}
        assert number_is_one_of("number", []) == MATCH_NONE
        assert number_is_one_of("number", [1 << 70]) == MATCH_NONE

    @given(numbers=st.sets(st.integers(0, 60)))
    def test_ranges_hold_what_was_listed(self, numbers: set[int]) -> None:
        """No number is lost, none is added."""
        found: set[int] = set()
        for kind, _, arguments in leaves(number_is_one_of("number", numbers)):
            found |= set(arguments if kind == "terms" else range(arguments["gte"], arguments["lte"] + 1))
        assert found == numbers

    def test_no_filter_asks_for_all(self) -> None:
        """An empty filter has no clause."""
        assert conjunction(run_filter("")).query == MATCH_ALL == conjunction(run_filter(None)).query

    def test_a_pattern_that_lucene_would_refuse_is_checked_here(self) -> None:
        """The index finds more than what matches, and the sources tell which of it is right."""
        wanted = conjunction(run_filter("tags.t LIKE '%a________________b%'"))
        assert wanted.accepts({"t": {"t": "a0123456789abcdefb"}})
        assert not wanted.accepts({"t": {"t": "a0123456789b"}})
        assert not wanted.accepts({"t": {}})
        assert not conjunction(run_filter("tags.t LIKE '%a_b%'")).checks

    def test_half_a_surrogate_pair_is_refused(self) -> None:
        """It has no place in JSON."""
        with pytest.raises(MlflowException, match="surrogate"):
            run_filter("tags.t = '\ud800'")

    @pytest.mark.parametrize(
        "wrong", ["experiment_id LIKE '1'", "name IN ('a')", "tags.t > 'a'", "creation_time = 1.5"]
    )
    def test_wrong_comparisons_of_experiments_are_refused(self, wrong: str) -> None:
        """With MLflow's error code."""
        with pytest.raises(MlflowException) as raised:
            experiment_filter(wrong)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"

    def test_a_field_is_ordered_by_once(self) -> None:
        """As in MLflow's own store."""
        with pytest.raises(MlflowException, match="duplicate"):
            run_order(["metrics.m", "metrics.m DESC"])

    def test_experiments_without_a_time_come_as_in_sqlite(self) -> None:
        """NULL is below every value there."""
        assert [level["creation_time"]["missing"] for level in experiment_order(["creation_time ASC"])[:1]] == [
            "_first"
        ]
        assert [level["creation_time"]["missing"] for level in experiment_order(["creation_time DESC"])[:1]] == [
            "_last"
        ]
