"""Comparisons of numbers as queries."""

from __future__ import annotations

import math

from mlflow_plugkit_elasticsearch.queries import MATCH_NONE, Query, all_of, between, exists, none_of, term

_LEAST, _LARGEST = -(2**63), 2**63 - 1
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


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
