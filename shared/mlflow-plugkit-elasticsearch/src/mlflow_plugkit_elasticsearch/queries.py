"""Building blocks of Elasticsearch queries. Values go into them as JSON, never as query text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_plugkit_elasticsearch.encode import bounded, token, token_prefix
from mlflow_plugkit_elasticsearch.like import Like

Query = dict[str, Any]
MATCH_ALL: Query = {"match_all": {}}
MATCH_NONE: Query = {"match_none": {}}
#: Elasticsearch's `index.max_terms_count`.
MOST_TERMS = 65_536


def term(field: str, value: str | int | bool) -> Query:
    """Equality."""
    return {"term": {field: {"value": value}}}


def terms(field: str, values: Sequence[str | int]) -> Query:
    """Any of the values, also more than Elasticsearch takes in one clause."""
    if not values:
        return MATCH_NONE
    parts = [list(values[i : i + MOST_TERMS]) for i in range(0, len(values), MOST_TERMS)]
    return any_of([{"terms": {field: part}} for part in parts])


def exists(field: str) -> Query:
    """Whether the field has a value."""
    return {"exists": {"field": field}}


def between(field: str, **bounds: str | int | float) -> Query:
    """A range: `gt`, `gte`, `lt`, `lte`."""
    return {"range": {field: bounds}}


def all_of(queries: Sequence[Query]) -> Query:
    """All of them, without scoring."""
    if not queries:
        return MATCH_ALL
    return queries[0] if len(queries) == 1 else {"bool": {"filter": list(queries)}}


def any_of(queries: Sequence[Query]) -> Query:
    """One of them at least."""
    if not queries:
        return MATCH_NONE
    return queries[0] if len(queries) == 1 else {"bool": {"should": list(queries), "minimum_should_match": 1}}


def none_of(queries: Sequence[Query]) -> Query:
    """None of them."""
    return {"bool": {"must_not": list(queries)}} if queries else MATCH_ALL


def has_key(field: str, key: str) -> Query:
    """Whether a field of `encode.token`s has one for the key."""
    return {"prefix": {field: {"value": token_prefix(key)}}}


def key_equals(field: str, key: str, value: str) -> Query:
    """Whether a field of `encode.token`s holds this key with this value."""
    return term(field, token(key, value))


def key_like(field: str, key: str, pattern: str, *, ignore_case: bool = False) -> Query:
    """SQL's LIKE (ILIKE with `ignore_case`) on the value of one key in a field of `encode.token`s."""
    return like(field, pattern, ignore_case=ignore_case, before=token_prefix(key))


def like(field: str, pattern: str, *, ignore_case: bool = False, before: str = "") -> Query:
    """SQL's LIKE on a keyword field; a pattern that is not `Like.exact` finds more than it should.

    Args:
        field: the keyword field.
        pattern: the pattern as the user wrote it.
        ignore_case: ILIKE.
        before: text that stands before the pattern and is compared as it is.
    """
    return Like(pattern, ignore_case=ignore_case).query(field, before)


def equals(field: str, value: str) -> Query:
    """Equality on a keyword field that holds `encode.bounded` values."""
    return term(field, bounded(value))
