"""Queries: each builder finds on a node what the same condition chooses in Python, whatever the texts hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from things import THINGS

from mlflow_plugkit_elasticsearch import Action, Documents, ElasticsearchSettings, bulk
from mlflow_plugkit_elasticsearch import queries as q
from mlflow_plugkit_elasticsearch.encode import bounded, token
from mlflow_plugkit_elasticsearch.like import Like

ALPHABET = 'aAbB%_*?\\."[](){}|&<>~#@^$+-\x00\n ößİK大😀0'
TEXTS = ["", "a", "A", "ab", "aB", "b", "a%b", "a_b", "axb", "a*b", "a?b", "a\\b", 'a"b', "a.b", "[a]", "(a)", "{a}"]
TEXTS += ["a|b", "a&b", "<1-9>", "~a", "#a", "@", "^a$", "a+b", "a-b", "a\x00b", "a\nb", " ", "ö", "Ö", "ß", "SS", "İ"]
TEXTS += ["i", "K", "k", "大", "😀", "0", "x" * 40_000, "x" * 40_001, "end " * 300]
PATTERNS = st.text(st.sampled_from(ALPHABET), max_size=8)


@pytest.fixture(scope="module")
def texts(prefixes: Any) -> Documents:
    """One document for each text: in `name` where it fits, and in `tokens` under the key `k`."""
    documents = Documents.of(ElasticsearchSettings.from_uri(prefixes.fresh_uri()))
    sources = [
        {"number": n, "name": bounded(text), "tokens": [token("k", text), token("other", "a")], "text": text}
        for n, text in enumerate(TEXTS)
    ]
    sources += [{"number": 900, "tokens": [token("other", "ab")]}, {"number": 901}]
    bulk(documents, [Action("index", THINGS, str(source["number"]), source) for source in sources])
    return documents


def found(documents: Documents, query: q.Query) -> list[int]:
    return [int(hit.id) for hit in documents.scan(THINGS, query, "number", source=False)]


def by_like(pattern: str, text: str, ignore_case: bool) -> bool:
    """SQL's LIKE in Python: an oracle of its own; ILIKE folds A to Z, as SQLite does."""
    fold = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
    if ignore_case:
        pattern, text = pattern.translate(fold), text.translate(fold)
    regexp = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(regexp, text, re.DOTALL) is not None


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(pattern=PATTERNS | st.sampled_from(TEXTS), ignore_case=st.booleans())
@example(pattern="%", ignore_case=True)
@example(pattern="x" * 40_000 + "%", ignore_case=False)
@example(pattern="%" + "_" * 300, ignore_case=True)
@example(pattern="a%" * 200, ignore_case=True)
def test_like_finds_what_it_should(texts: Documents, pattern: str, ignore_case: bool) -> None:
    """On a field and on the value of a key; a pattern that is not exact finds more, and its check takes that away."""
    wanted = [n for n, text in enumerate(TEXTS) if by_like(pattern, text, ignore_case) and len(text) < 30_000]
    like = Like(pattern, ignore_case=ignore_case)
    for query in (
        q.like("name", pattern, ignore_case=ignore_case),
        q.key_like("tokens", "k", pattern, ignore_case=ignore_case),
    ):
        got = [n for n in found(texts, query) if len(TEXTS[n]) < 30_000]
        if like.exact:
            assert got == wanted
        assert [n for n in got if like.matches(TEXTS[n])] == wanted


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_equality_finds_one(texts: Documents, text: str) -> None:
    """Also of texts that are too long for a term, and of what other query languages give a meaning to."""
    wanted = [TEXTS.index(text)]
    assert found(texts, q.equals("name", text)) == wanted
    assert found(texts, q.key_equals("tokens", "k", text)) == wanted
    assert found(texts, q.terms("name", [bounded(text), "none"])) == wanted
    assert len(found(texts, q.none_of([q.equals("name", text)]))) == len(TEXTS) + 1


def test_keys_are_known(texts: Documents) -> None:
    """A key is there whatever its value, and only the whole key."""
    assert found(texts, q.has_key("tokens", "k")) == list(range(len(TEXTS)))
    assert len(found(texts, q.has_key("tokens", "other"))) == len(TEXTS) + 1
    for key in ("o", "othe", "k\x00", "", "*", "k*"):
        assert found(texts, q.has_key("tokens", key)) == []


def test_conditions_are_put_together(texts: Documents) -> None:
    """And, or, not, ranges and existence."""
    small = q.between("number", lt=3)
    assert found(texts, q.all_of([small, q.none_of([q.term("number", 1)])])) == [0, 2]
    assert found(texts, q.any_of([q.term("number", 1), q.equals("name", "ab")])) == [1, 3]
    assert found(texts, q.all_of([q.between("number", gte=900), q.exists("tokens")])) == [900]
    assert found(texts, q.none_of([q.exists("name")])) == [900, 901]
    assert found(texts, q.any_of([])) == found(texts, q.MATCH_NONE) == found(texts, q.terms("name", [])) == []
    assert len(found(texts, q.all_of([]))) == len(found(texts, q.none_of([]))) == len(TEXTS) + 2


def test_more_values_than_one_clause_takes_are_split(texts: Documents) -> None:
    """Elasticsearch takes 65,536 values in a clause."""
    values = [f"none{n}" for n in range(q.MOST_TERMS)] + ["ab"]
    assert found(texts, q.terms("name", values)) == [3]
