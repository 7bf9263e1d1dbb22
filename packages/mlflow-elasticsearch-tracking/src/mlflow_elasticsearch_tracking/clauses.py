"""One comparison of MLflow's filter grammar as a query. As in SQL, what has no value fulfils none, not even `!=`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import bounded, token
from mlflow_plugkit_elasticsearch.queries import (
    MATCH_NONE,
    Query,
    all_of,
    any_of,
    between,
    equals,
    exists,
    has_key,
    key_equals,
    key_like,
    like,
    none_of,
    term,
    terms,
)

_LEAST, _LARGEST = -(2**63), 2**63 - 1
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def text(field: str, op: str, value: Any) -> Query:
    """A comparison of a keyword field.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a list where a text is wanted, and the other way round.
    """
    op = op.upper()
    if op in ("IN", "NOT IN"):
        found = terms(field, [bounded(one) for one in _texts(op, value)])
        return found if op == "IN" else all_of([exists(field), none_of([found])])
    value = _text(op, value)
    if op == "=":
        return equals(field, value)
    if op == "!=":
        return all_of([exists(field), none_of([equals(field, value)])])
    return like(field, value, ignore_case=op == "ILIKE")


def keyed(field: str, key: str, op: str, value: Any) -> Query:
    """A comparison of the value of one key in a field of tokens.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, as `text`.
    """
    op = op.upper()
    if op in ("IN", "NOT IN"):
        found = terms(field, [token(key, one) for one in _texts(op, value)])
        return found if op == "IN" else all_of([has_key(field, key), none_of([found])])
    value = _text(op, value)
    if op == "=":
        return key_equals(field, key, value)
    if op == "!=":
        return all_of([has_key(field, key), none_of([key_equals(field, key, value)])])
    return key_like(field, key, value, ignore_case=op == "ILIKE")


def number(field: str, op: str, value: float) -> Query:
    """A comparison of a field of integers with any number."""
    if math.isnan(value):
        return exists(field) if op == "!=" else MATCH_NONE
    whole = value == math.inf or value == -math.inf or value == math.floor(value)
    if op in ("=", "!="):
        found = term(field, int(value)) if whole and _LEAST <= value <= _LARGEST else MATCH_NONE
        return found if op == "=" else all_of([exists(field), none_of([found])])
    if value < _LEAST or value > _LARGEST:
        return exists(field) if (op[0] == ">") == (value < 0) else MATCH_NONE
    if whole:
        return between(field, **{_BOUNDS[op]: int(value)})
    return between(field, gte=math.ceil(value)) if op[0] == ">" else between(field, lte=math.floor(value))


def either(queries: Sequence[Query]) -> Query:
    """One of them at least."""
    return any_of(list(queries))


def _text(op: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        raise mlflow_error(f"Invalid value for {op}: {value!r}. Give one text; a list goes with IN.")
    return str(value)


def _texts(op: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise mlflow_error(f"Invalid value for {op}: {value!r}. Give a list of texts in parentheses.")
    return [str(one) for one in value]
