"""LIKE and ILIKE: what matches is what SQLite says, and no pattern makes more than Lucene takes."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_plugkit_elasticsearch.encode import token_prefix
from mlflow_plugkit_elasticsearch.like import Like

ALPHABET = 'abAB%_\\*?.[](){}|"#@&~<>+^$-\n éÉ😀\u017f\u212aİi'
texts = st.text(st.sampled_from(ALPHABET), max_size=12)


@pytest.fixture(scope="module")
def sqlite() -> sqlite3.Connection:
    """SQLite as MLflow sets it."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like = true")
    return connection


@given(pattern=texts, value=texts, ignore_case=st.booleans())
@example(pattern="%a%a%", value="aba", ignore_case=False)
@example(pattern="%ab", value="abab", ignore_case=False)
@example(pattern="a%a", value="a", ignore_case=False)
@example(pattern="ß%", value="SS", ignore_case=True)
def test_a_value_matches_as_in_sqlite(sqlite: sqlite3.Connection, pattern: str, value: str, ignore_case: bool) -> None:
    """Also with every character that is special to Lucene, and with letters whose case only Unicode knows."""
    sql = "SELECT lower(?) LIKE lower(?)" if ignore_case else "SELECT ? LIKE ?"
    (wanted,) = sqlite.execute(sql, (value, pattern)).fetchone()
    assert Like(pattern, ignore_case=ignore_case).matches(value) is bool(wanted)


def test_no_value_matches_nothing() -> None:
    """Not even `%`, as NULL in SQL."""
    assert not Like("%").matches(None)


@pytest.mark.parametrize(
    ("pattern", "query"),
    [
        ("one", {"term": {"f": {"value": "k\0one"}}}),
        ("", {"term": {"f": {"value": "k\0"}}}),
        ("one%", {"prefix": {"f": {"value": "k\0one"}}}),
        ("%", {"prefix": {"f": {"value": "k\0"}}}),
        ("%%", {"prefix": {"f": {"value": "k\0"}}}),
        ("o_e%x", {"wildcard": {"f": {"value": "k\0o?e*x"}}}),
        ("*?\\%x", {"wildcard": {"f": {"value": "k\0\\*\\?\\\\*x"}}}),
    ],
)
def test_the_cheapest_query_is_taken(pattern: str, query: dict[str, Any]) -> None:
    """A term where there is no wildcard, a prefix where it is at the end."""
    assert Like(pattern).query("f", "k\0") == query


def test_ilike_without_letters_is_like() -> None:
    """There is no case to ignore."""
    assert Like("%-42-%", ignore_case=True).query("f") == Like("%-42-%").query("f")


def test_ilike_spells_out_both_cases_of_letters_alone() -> None:
    """Everything else in a regular expression is literal; the key before it keeps its case."""
    query = Like("Aé.%_", ignore_case=True).query("f", "K.\0")
    assert query == {"regexp": {"f": {"value": "K\\.\\\0[aA]é\\..*.", "flags": "NONE"}}}


@given(
    pattern=st.text(st.sampled_from("aA%_.é😀"), max_size=80).map(lambda part: part * 60),
    key=st.text(st.sampled_from("k*é😀"), max_size=250),
    ignore_case=st.booleans(),
)
def test_queries_stay_within_the_limits(pattern: str, key: str, ignore_case: bool) -> None:
    """However long a pattern and a key are, what Lucene makes of them has fewer than 1,000 states and characters."""
    like = Like(pattern, ignore_case=ignore_case)
    ((kind, body),) = like.query("f", token_prefix(key)).items()
    value = body["f"]["value"]
    if kind == "regexp":
        assert len(value.encode("utf-16-le")) // 2 < 1_000
    if kind in ("prefix", "wildcard"):
        front = re.split(r"(?<!\\)\*", value)[0]
        assert len(front.encode()) < 1_000
    if not like.exact:
        assert kind in ("prefix", "wildcard", "regexp")


@given(pattern=st.text(st.sampled_from("ab%_"), max_size=90), value=st.text(st.sampled_from("ab"), max_size=90))
def test_a_narrowed_pattern_loses_nothing(pattern: str, value: str) -> None:
    """What the index is asked instead of a complex pattern finds all that the pattern matches."""
    like = Like(pattern)
    if like.matches(value):
        assert Like(like._searched).matches(value)
