"""From MLflow's parsed filters to Elasticsearch queries. Pure functions: they ask nothing of a cluster.

MLflow's own parsers are the grammar. A clause is compiled as MLflow's SQL store reads it on SQLite: `!=` wants a value
to differ from, no comparison but `!=` holds for NaN, `LIKE` heeds case and `ILIKE` takes A-Z for a-z alone. Keys and
values go into queries as JSON values of terms, never as names of fields or as query text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from mlflow.utils.search_utils import SearchExperimentsUtils, SearchUtils

from mlflow_elasticsearch_tracking.clauses import number
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import SEPARATOR, key_token, point, points, token, token_prefix
from mlflow_plugkit_elasticsearch.like import Like
from mlflow_plugkit_elasticsearch.queries import (
    MATCH_ALL,
    Query,
    all_of,
    any_of,
    between,
    exists,
    has_key,
    none_of,
    term,
    terms,
)

Source = Mapping[str, Any]
Read = Callable[[Source], str | None]
#: The tag that a filter on `run_name` means (mlflow.utils.mlflow_tags.MLFLOW_RUN_NAME).
RUN_NAME_TAG = "mlflow.runName"
_LIST = ("IN", "NOT IN")
_NULL = ("IS NULL", "IS NOT NULL")
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_OUTSIDE = 1 << 64
#: Lucene's automaton of a range of terms has fewer than 1,000 states, one for each byte of a bound.
_LONGEST_BOUND = 900
#: Consecutive numbers become one range where there are so many of them, and at most so many ranges in one query.
_FEWEST_IN_RANGE, _MOST_RANGES = 8, 500


class Clause(NamedTuple):
    """One condition.

    Attributes:
        query: what the index answers.
        check: for a pattern that the index can only narrow down: whether a found document's source is right.
    """

    query: Query
    check: Callable[[Source], bool] | None = None


class Filter(NamedTuple):
    """All conditions of a search."""

    query: Query
    checks: list[Callable[[Source], bool]]

    def accepts(self, source: Source) -> bool:
        """Whether a document that the query found is one of those asked for."""
        return all(check(source) for check in self.checks)


def conjunction(clauses: Iterable[Clause]) -> Filter:
    """All of the clauses."""
    given = list(clauses)
    queries = [one.query for one in given if one.query != MATCH_ALL]
    return Filter(all_of(queries), [one.check for one in given if one.check])


# One kind of field each.


def text_clause(field: str, comparator: str, value: Any, read: Read) -> Clause:
    """A comparison of a keyword field that holds whole values.

    Args:
        field: the field.
        comparator: =, !=, LIKE, ILIKE, IN or NOT IN.
        value: a text, or a tuple of texts for IN and NOT IN.
        read: the value in a document's source.
    """
    if comparator in _LIST:
        query = terms(field, list(_texts(value)))
        return Clause(query if comparator == "IN" else all_of([exists(field), none_of([query])]))
    if comparator in ("LIKE", "ILIKE"):
        pattern = Like(_text(value), ignore_case=comparator == "ILIKE")
        return Clause(pattern.query(field), _check(pattern, read))
    if comparator == "=":
        return Clause(term(field, _text(value)))
    if comparator == "!=":
        return Clause(all_of([exists(field), none_of([term(field, _text(value))])]))
    raise unknown_comparator(comparator, field)


def key_clause(field: str, comparator: str, key: str, value: Any, read: Read, *, bare_keys: bool = False) -> Clause:
    """A comparison of the value of one key in a field of `encode.token`s, of which a document has one for each key.

    Args:
        field: the field of tokens.
        comparator: =, !=, LIKE, ILIKE, IS NULL or IS NOT NULL.
        key: the key.
        value: a text.
        read: the value of the key in a document's source.
        bare_keys: whether the field holds each key alone, too, which is far cheaper to ask for than any value of it.
    """
    present = term(field, key_token(key)) if bare_keys else has_key(field, key)
    if comparator in _NULL:
        return Clause(none_of([present]) if comparator == "IS NULL" else present)
    if comparator in ("LIKE", "ILIKE"):
        pattern = Like(_text(value), ignore_case=comparator == "ILIKE")
        return Clause(pattern.query(field, token_prefix(key)), _check(pattern, read))
    equal = term(field, token(key, _text(value)))
    if comparator == "=":
        return Clause(equal)
    if comparator == "!=":
        return Clause(all_of([present, none_of([equal])]))
    raise unknown_comparator(comparator, key)


def any_clause(
    field: str, comparator: str, key: str, value: Any, read: Callable[[Source], Iterable[str | None]]
) -> Clause:
    """A comparison that one of several values of a key must fulfil, so that `!=` asks for another value beside it.

    Args:
        field: the field of tokens.
        comparator: =, !=, LIKE, ILIKE, IN or NOT IN.
        key: the key.
        value: a text, or a tuple of texts for IN and NOT IN.
        read: the values of the key in a document's source.
    """
    if comparator in ("LIKE", "ILIKE"):
        pattern = Like(_text(value), ignore_case=comparator == "ILIKE")
        found = pattern.query(field, token_prefix(key))
        return Clause(found, None if pattern.exact else lambda source: any(map(pattern.matches, read(source))))
    given = _texts(value) if comparator in _LIST else [_text(value)]
    before, values = token_prefix(key), sorted({token(key, one) for one in given})
    if comparator in ("=", "IN"):
        return Clause(terms(field, values))
    if comparator in ("!=", "NOT IN"):
        if any(len(one.encode()) > _LONGEST_BOUND for one in values):
            return Clause(has_key(field, key), lambda source: any(one not in (None, *given) for one in read(source)))
        edges = [before, *values, before[:-1] + chr(ord(SEPARATOR) + 1)]
        gaps = [
            between(field, **{"gte" if low is before else "gt": low, "lt": high})
            for low, high in pairwise(edges)
            if low != high
        ]
        return Clause(any_of(gaps))
    raise unknown_comparator(comparator, key)


def metric_clause(field: str, comparator: str, key: str, value: float) -> Clause:
    """A comparison of the number of one key in a field of `encode.point`s.

    Args:
        field: the field, of the type `ip`.
        comparator: =, !=, >, >=, < or <=.
        key: the key.
        value: what to compare with; no NaN.
    """
    here = point(key, value)
    low, high = points(key)
    if comparator == "=":
        return Clause(term(field, here))
    if comparator == "!=":
        below = between(field, gte=low, lt=here)
        return Clause(any_of([below, between(field, gt=here, lte=point(key, math.nan))]))
    if comparator not in _BOUNDS:
        raise unknown_comparator(comparator, key)
    other = {"lte": high} if comparator[0] == ">" else {"gte": low}
    return Clause(between(field, **{_BOUNDS[comparator]: here}, **other))


def number_is_one_of(field: str, numbers: Iterable[int]) -> Query:
    """Whether an integer field has one of many values; neighbours among them become ranges, which are far cheaper."""
    known = sorted({one for one in numbers if abs(one) < _OUTSIDE >> 1})
    blocks: list[list[int]] = []
    for one in known:
        if blocks and one == blocks[-1][1] + 1:
            blocks[-1][1] = one
        else:
            blocks.append([one, one])
    blocks.sort(key=lambda block: block[0] - block[1])
    wide = [block for block in blocks[:_MOST_RANGES] if block[1] - block[0] >= _FEWEST_IN_RANGE]
    rest = [one for low, high in blocks[len(wide) :] for one in range(low, high + 1)]
    ranges = [between(field, gte=low, lte=high) for low, high in wide]
    return any_of([*ranges, terms(field, sorted(rest))] if rest else ranges)


def unknown_comparator(comparator: str, name: str) -> Exception:
    """The error for a comparison that the field does not have."""
    return mlflow_error(f"Invalid comparator '{comparator}' for '{name}'.")


# Runs.


def run_filter(filter_string: str | None) -> list[Clause]:
    """The clauses of a filter of runs, as `mlflow.search_runs` takes it.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not have.
    """
    return [_run_clause(parsed) for parsed in _parsed(SearchUtils.parse_search_filter, filter_string)]


def _run_clause(parsed: Mapping[str, Any]) -> Clause:
    kind, value, comparator = parsed["type"], parsed["value"], parsed["comparator"].upper()
    key = SearchUtils.translate_key_alias(parsed["key"])
    if SearchUtils.is_string_attribute(kind, key, comparator):
        if key == "run_name":
            return key_clause("tag_tokens", comparator, RUN_NAME_TAG, value, _entry("t", RUN_NAME_TAG), bare_keys=True)
        return text_clause(key, comparator, value, lambda source: source.get(key))
    if SearchUtils.is_numeric_attribute(kind, key, comparator):
        return _number_clause(key, comparator, value)
    if SearchUtils.is_metric(kind, comparator):
        return metric_clause("metric_points", comparator, key, float(value))
    if SearchUtils.is_param(kind, comparator):
        return key_clause("param_tokens", comparator, key, value, _entry("p", key), bare_keys=True)
    if SearchUtils.is_tag(kind, comparator):
        return key_clause("tag_tokens", comparator, key, value, _entry("t", key), bare_keys=True)
    if SearchUtils.is_dataset(kind, comparator):
        return any_clause("dataset_tokens", comparator, key, value, _datasets(key))
    raise mlflow_error(f"Invalid search expression type '{kind}'")


def _datasets(key: str) -> Callable[[Source], list[str | None]]:
    """The names, digests or contexts of the datasets that a run read (`run_links`)."""
    from mlflow_elasticsearch_tracking.run_links import CONTEXT_TAG

    def read(source: Source) -> list[str | None]:
        inputs = source.get("in", {}).get("d", ())
        return [
            {"name": name, "digest": digest, "context": tags.get(CONTEXT_TAG)}[key] for name, digest, tags in inputs
        ]

    return read


# Experiments.


def experiment_filter(filter_string: str | None) -> list[Clause]:
    """The clauses of a filter of experiments, as `mlflow.search_experiments` takes it.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not have.
    """
    return [_experiment_clause(parsed) for parsed in _parsed(SearchExperimentsUtils.parse_search_filter, filter_string)]


def _experiment_clause(parsed: Mapping[str, Any]) -> Clause:
    kind, key, comparator, value = parsed["type"], parsed["key"], parsed["comparator"], parsed["value"]
    if kind == "tag":
        if comparator not in ("=", "!=", "LIKE", "ILIKE", *_NULL):
            raise unknown_comparator(comparator, key)
        return key_clause("tag_tokens", comparator, key, value, _entry("t", key), bare_keys=True)
    if key == "experiment_id":
        return _experiment_id_clause(comparator, value)
    if key == "name":
        if comparator not in ("=", "!=", "LIKE", "ILIKE"):
            raise unknown_comparator(comparator, key)
        return text_clause(key, comparator, value, lambda source: source.get(key))
    if isinstance(value, float) or comparator not in ("=", "!=", *_BOUNDS):
        raise mlflow_error(f"Invalid comparison of the numeric attribute '{key}': {comparator} {value!r}")
    try:
        return _number_clause(key, comparator, int(value))
    except (TypeError, ValueError):
        raise mlflow_error(f"Invalid value for numeric attribute '{key}': {value!r}") from None


def _experiment_id_clause(comparator: str, value: Any) -> Clause:
    if comparator not in ("=", "!=", *_LIST):
        raise unknown_comparator(comparator, "experiment_id")
    numbers = experiment_numbers(value if isinstance(value, (tuple, list)) else [value])
    query = number_is_one_of("number", numbers)
    return Clause(query if comparator in ("=", "IN") else none_of([query]))


def experiment_numbers(ids: Sequence[str | int]) -> list[int]:
    """The ids of experiments as the numbers that they are.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an id that is no number.
    """
    found = []
    for one in ids:
        try:
            found.append(int(one))
        except (TypeError, ValueError):
            raise mlflow_error(f"Invalid experiment ID '{one}'. Experiment ID must be a valid integer.") from None
    return found


# Values.


def _number_clause(field: str, comparator: str, value: float | str) -> Clause:
    if isinstance(value, str):  # as older parsers of MLflow leave it
        value = int(value) if value.lstrip("-").isdecimal() else float(value)
    # Beyond 64 bits one number is as good as another, and a float can hold it.
    return Clause(number(field, comparator, max(-_OUTSIDE, min(_OUTSIDE, value))))


def _entry(field: str, key: str) -> Read:
    def read(source: Source) -> str | None:
        value = (source.get(field) or {}).get(key)
        return value if value is None else str(value)

    return read


def _check(pattern: Like, read: Read) -> Callable[[Source], bool] | None:
    return None if pattern.exact else lambda source: pattern.matches(read(source))


def _parsed(parse: Callable[[str | None], Any], filter_string: str | None) -> Any:
    """What MLflow's parser makes of a filter; what it stumbles over is the filter's fault."""
    try:
        return parse(_valid(filter_string))
    except (ValueError, SyntaxError) as exc:
        raise mlflow_error(f"The filter {filter_string!r} cannot be read: {exc}") from None


def _valid(filter_string: str | None) -> str | None:
    """The filter, if it is text that UTF-8 can hold."""
    try:
        (filter_string or "").encode()
    except UnicodeEncodeError:
        raise mlflow_error("The filter is no valid Unicode text: it holds half of a surrogate pair.") from None
    return filter_string


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise mlflow_error(f"Expected one quoted string to compare with, got {value!r}. Use IN for a list.")
    return value


def _texts(value: Any) -> Sequence[str]:
    if not isinstance(value, (tuple, list)):
        raise mlflow_error(f"Expected a list of quoted strings in parentheses, got {value!r}.")
    return value
