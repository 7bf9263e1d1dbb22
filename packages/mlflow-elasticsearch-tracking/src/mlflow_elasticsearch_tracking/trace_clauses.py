"""Comparisons of texts: the query that the index answers, and the check where it finds too much."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import bounded, token, token_prefix
from mlflow_plugkit_elasticsearch.like import Like
from mlflow_plugkit_elasticsearch.queries import (
    Query,
    all_of,
    any_of,
    between,
    exists,
    none_of,
    term,
    terms,
)

#: Whether a source holds what a clause asks for.
Check = Callable[[Mapping[str, Any]], bool]
Matches = Callable[[str], bool]
_MAPS = {"tag": ("tag_tokens", "t"), "metadata": ("metadata_tokens", "m")}


def text_clause(field: str, source_key: str, comparator: str, value: Any) -> tuple[Query, Check | None]:
    """A comparison of a field with one text or none. What has no value meets IS NULL alone."""
    if comparator == "IS NULL":
        return none_of([exists(field)]), None
    if comparator == "IS NOT NULL":
        return exists(field), None
    if comparator in ("=", "!=", "IN", "NOT IN"):
        wanted = [value] if isinstance(value, str) else list(value)
        query = terms(field, [bounded(each) for each in wanted])
        return (query if comparator in ("=", "IN") else all_of([exists(field), none_of([query])])), None
    test, like = _pattern(comparator, value)
    check: Check | None = lambda source: test(source.get(source_key) or "")  # noqa: E731 # belongs to the query beside it
    if like is None:
        return exists(field), check
    return all_of([exists(field), like.query(field)]), (None if like.exact else check)


def value_clause(where: str, key: str, comparator: str, value: Any) -> tuple[Query, Check | None]:
    """A comparison of the value of one tag (`tag`) or metadata entry (`metadata`).

    The fields hold a term for each key beside those for key and value.
    """
    field, source_key = _MAPS[where]
    there = term(field, bounded(key))
    if comparator == "IS NULL":
        return none_of([there]), None
    if comparator == "IS NOT NULL":
        return there, None
    if comparator in ("=", "!="):
        same = term(field, token(key, value))
        return (same if comparator == "=" else all_of([there, none_of([same])])), None
    test, like = _pattern(comparator, value)

    def check(source: Mapping[str, Any]) -> bool:
        found = source.get(source_key, {}).get(key)
        return found is not None and test(found)

    if like is None:
        return there, check
    return like.query(field, token_prefix(key)), (None if like.exact else check)


def member_clause(field: str, before: str, comparator: str, values: list[str]) -> Query:
    """Whether one of a field's many terms that begin with `before` is, or (`!=`) is none, of the values."""
    wanted = sorted({before + value for value in values})
    if comparator == "=":
        return terms(field, wanted)
    gaps = [between(field, gte=before, lt=wanted[0])]
    gaps += [between(field, gt=low, lt=high) for low, high in pairwise(wanted)]
    end = {"lt": before[:-1] + chr(ord(before[-1]) + 1)} if before else {}
    gaps.append(between(field, gt=wanted[-1], **end))
    return any_of(gaps)


def _pattern(comparator: str, value: Any) -> tuple[Matches, Like | None]:
    if comparator in ("LIKE", "ILIKE"):
        like = Like(value, ignore_case=comparator == "ILIKE")
        return like.matches, like
    if comparator == "RLIKE":
        expression = regular_expression(value)
        return (lambda text: expression.search(text) is not None), None
    raise mlflow_error(f"Invalid comparator '{comparator}' for a text.")


def text_test(comparator: str, value: Any) -> Matches:
    """The comparison in Python."""
    if comparator in ("=", "!=", "IN", "NOT IN"):
        wanted = {value} if isinstance(value, str) else set(value)
        return wanted.__contains__ if comparator in ("=", "IN") else lambda text: text not in wanted
    return _pattern(comparator, value)[0]


@lru_cache(maxsize=128)
def regular_expression(pattern: str) -> re.Pattern[str]:
    """The expression of an RLIKE, searched for anywhere in a text, as MLflow has it on SQLite.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an invalid one.
    """
    try:
        return re.compile(pattern)
    except re.error as exc:
        raise mlflow_error(f"Invalid regular expression {pattern!r}: {exc}.") from None
