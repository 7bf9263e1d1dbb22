"""From the filters and orders of `search_traces`, as MLflow parses them, to queries and sorts.

MLflow's grammar and its checks are `mlflow.utils.search_utils.SearchTraceUtils`; what a clause means is what MLflow's
SQL store makes of it. What the index cannot decide alone is checked on the documents that it finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from mlflow.utils.search_utils import SearchTraceUtils

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.trace_clauses import Check, text_clause, value_clause
from mlflow_elasticsearch_tracking.trace_documents import finite, token_count
from mlflow_elasticsearch_tracking.trace_span_filters import SpanFilter
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import field_key
from mlflow_plugkit_elasticsearch.queries import (
    MATCH_NONE,
    Query,
    all_of,
    any_of,
    between,
    exists,
    none_of,
    term,
)

#: How much earlier than its trace a span may begin, in a search with a lower bound on time.
TOLERANCE_MS = 10_000
_FIELDS = {
    "request_id": "trace_id",
    "end_time": "end_time_ms",
    "timestamp": "timestamp_ms",
    "execution_time": "execution_time_ms",
}
_NUMBERS = ("timestamp_ms", "execution_time_ms", "end_time_ms")
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class Clause(NamedTuple):
    """One comparison, as MLflow parsed it."""

    kind: str
    key: str
    comparator: str
    value: Any


@dataclass
class TraceFilter:
    """A compiled filter.

    Attributes:
        queries: on the traces; all must hold.
        checks: on the traces' sources; all must hold.
        spans: conditions that one span of the trace must meet together.
        assessments: comparisons of assessments, which may also be about the trace's session.
        run_id: the run that the trace belongs or is linked to.
    """

    queries: list[Query] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    spans: SpanFilter = field(default_factory=SpanFilter)
    assessments: list[Clause] = field(default_factory=list)
    run_id: str | None = None

    def add(self, compiled: tuple[Query, Check | None]) -> None:
        """Add a condition."""
        query, check = compiled
        self.queries.append(query)
        if check is not None:
            self.checks.append(check)


@lru_cache(maxsize=128)
def parsed(filter_string: str | None) -> tuple[Clause, ...]:
    """The clauses of a filter, all of which must hold."""
    found = SearchTraceUtils.parse_search_filter_for_search_traces(filter_string)
    return tuple(Clause(c["type"], c["key"], c["comparator"].upper(), c.get("value")) for c in found)


def compile_filter(filter_string: str | None) -> TraceFilter:
    """The compiled filter.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not know.
    """
    result = TraceFilter()
    for clause in parsed(filter_string):
        _add(result, clause)
    if result.run_id is not None:
        linked = term("runs", result.run_id)
        result.queries.append(any_of([linked, value_clause("metadata", keys.SOURCE_RUN, "=", result.run_id)[0]]))
    return result


def _add(result: TraceFilter, clause: Clause) -> None:
    kind, key, comparator, value = clause
    is_issue = getattr(SearchTraceUtils, "is_issue", None)
    if is_issue is not None and is_issue(kind, key, comparator):
        result.queries.append(term("issues", value))
    elif SearchTraceUtils.is_attribute(kind, key, comparator):
        result.add(_attribute(_FIELDS.get(key, key), comparator, value))
        if key == "timestamp_ms" and comparator in (">", ">="):
            result.spans.not_before(_number(key, value) - TOLERANCE_MS)
    elif SearchTraceUtils.is_tag(kind, comparator):
        result.add(_tag(key, comparator, value))
    elif SearchTraceUtils.is_request_metadata(kind, comparator):
        _add_metadata(result, clause)
    elif SearchTraceUtils.is_span(kind, key, comparator):
        result.spans.add(key, comparator, value)
    elif SearchTraceUtils.is_assessment(kind, key, comparator):
        result.assessments.append(clause)
    else:
        raise mlflow_error(f"Invalid search expression type '{kind}'")


def _attribute(name: str, comparator: str, value: Any) -> tuple[Query, Check | None]:
    if name not in _NUMBERS:
        return text_clause(name, name, comparator, value)
    value = _number(name, value)
    if comparator in _BOUNDS:
        return between(name, **{_BOUNDS[comparator]: value}), None
    if comparator == "!=":
        return all_of([exists(name), none_of([term(name, value)])]), None
    return term(name, value), None


def _number(name: str, value: Any) -> Any:
    number = finite(value)
    if number is None:
        raise mlflow_error(f"Expected a number for {name}. Got {value!r}.")
    return value if isinstance(value, int) else number


def _tag(key: str, comparator: str, value: Any) -> tuple[Query, Check | None]:
    if key == keys.TRACE_NAME:
        return text_clause("name", "name", comparator, value)
    if key == keys.LINKED_PROMPTS:
        return _prompt(comparator, value), None
    return value_clause("tag", key, comparator, value)


def _prompt(comparator: str, value: str) -> Query:
    if comparator != "=":
        raise mlflow_error(
            f"Invalid comparator '{comparator}' for prompts filter. Only '=' is supported with format: "
            'prompt = "name/version"'
        )
    if value.count("/") != 1:
        raise mlflow_error(f"Invalid prompts filter value '{value}'. Expected format: prompt = \"name/version\"")
    return term("prompts", value)


def _add_metadata(result: TraceFilter, clause: Clause) -> None:
    _, key, comparator, value = clause
    if key == keys.SESSION:
        result.add(text_clause("session_id", "session_id", comparator, value))
    elif key in keys.COLUMNS:
        result.queries.append(columns_query(key, comparator, value))
    elif key == keys.SOURCE_RUN and comparator == "=":
        result.run_id = value
    else:
        result.add(value_clause("metadata", key, comparator, value))


def columns_query(key: str, comparator: str, value: Any) -> Query:
    """Comparison of token usage or cost with the JSON text that MLflow shows for them."""
    names = keys.COLUMNS[key]
    there = any_of([exists(name) for name in names])
    if comparator == "IS NULL":
        return none_of([there])
    if comparator == "IS NOT NULL":
        return there
    if comparator not in ("=", "!="):
        raise mlflow_error(
            f"Comparator '{comparator}' is not supported for reserved metadata '{key}'. "
            "Only '=', '!=', 'IS NULL', and 'IS NOT NULL' are supported."
        )
    same = _same_columns(key, names, value)
    return same if comparator == "=" else all_of([there, none_of([same])])


def _same_columns(key: str, names: Sequence[str], value: str) -> Query:
    try:
        given = json.loads(value)
    except ValueError:
        return MATCH_NONE
    if not isinstance(given, dict) or not set(given) <= set(names):
        return MATCH_NONE
    convert: Callable[[Any], Any] = token_count if key == keys.TOKEN_USAGE else finite
    wanted = {name: convert(given.get(name)) for name in names}
    wanted = {name: number for name, number in wanted.items() if number is not None}
    if not wanted or json.dumps(wanted) != value:
        return MATCH_NONE
    missing = none_of([exists(name) for name in names if name not in wanted])
    return all_of([*(term(name, number) for name, number in wanted.items()), missing])


# Orders.


def compile_order(order_by: Sequence[str] | None) -> list[dict[str, Any]]:
    """The sorts: what was asked for, what has no value last; then the latest first, then by id.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not know; `INTERNAL_ERROR` for one
            field twice, as MLflow has it.
    """
    sorts: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    for clause in order_by or ():
        try:
            kind, key, ascending = SearchTraceUtils.parse_order_by_for_search_traces(clause)
        except ValueError as exc:  # of the parser that MLflow splits the clause with
            raise mlflow_error(f"Invalid order_by clause {clause!r}: {exc}") from None
        if (kind, key) in seen:
            raise mlflow_error(f"`order_by` contains duplicate fields: {list(order_by or ())}", "INTERNAL_ERROR")
        seen.add((kind, key))
        name, unmapped = _sort_field(kind, key)
        direction = {"order": "asc" if ascending else "desc", "missing": "_last"}
        sorts.append({name: direction | ({"unmapped_type": unmapped} if unmapped else {})})
    for name, key, order in (("timestamp_ms", "timestamp_ms", "desc"), ("trace_id", "request_id", "asc")):
        if ("attribute", key) not in seen:
            sorts.append({name: {"order": order}})
    return sorts


def _sort_field(kind: str, key: str) -> tuple[str, str | None]:
    if SearchTraceUtils.is_request_metadata(kind, "="):
        if key in keys.COLUMNS:
            raise mlflow_error(f"Ordering by reserved metadata '{key}' is not supported: it has several values.")
        return ("session_id", None) if key == keys.SESSION else (f"metadata.{field_key(key)}", "keyword")
    if SearchTraceUtils.is_attribute(kind, key, "="):
        return ("experiment" if key == "experiment_id" else _FIELDS.get(key, key)), None
    if SearchTraceUtils.is_tag(kind, "="):
        return ("name", None) if key == keys.TRACE_NAME else (f"tags.{field_key(key)}", "keyword")
    raise mlflow_error(f"Invalid identifier type '{kind}'")
