"""MLflow's filters and orders as Elasticsearch queries.

The grammar is that of MLflow's own parser (mlflow.utils.search_utils); what its SQL store makes of it is the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.utils.search_utils import SearchModelUtils, SearchModelVersionUtils, SearchUtils

from mlflow_elasticsearch_registry.records import Source
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import bounded, token_prefix
from mlflow_plugkit_elasticsearch.like import Like
from mlflow_plugkit_elasticsearch.queries import (
    MATCH_ALL,
    MATCH_NONE,
    Query,
    all_of,
    any_of,
    between,
    equals,
    exists,
    has_key,
    key_equals,
    none_of,
    term,
    terms,
)

Filter = dict[str, Any]
Check = Callable[[Source], bool]
_TEXT = ("=", "!=", "LIKE", "ILIKE")
_LISTS = ("IN", "NOT IN")
_NUMBER = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_LONG = 2**63
_VERSION_COMPARATORS = SearchModelVersionUtils.VALID_STRING_ATTRIBUTE_COMPARATORS
_VERSION_ORDER = {
    "name": "name_term",
    "version_number": "version",
    "creation_timestamp": "creation_time",
    "last_updated_timestamp": "last_updated_time",
}


class Compiled(NamedTuple):
    """A filter: what Elasticsearch can answer, and what is to be checked of each hit.

    Patterns are checked: an index knows no more of a long value than its beginning, and a pattern may be too complex
    for it, so that the query may find more than it should.
    """

    query: Query
    checks: tuple[Check, ...]


class _Text(NamedTuple):
    """A text to compare: the field that is searched, the key in the source, and whether lists are taken."""

    field: str
    key: str
    lists: bool


_MODEL_TEXTS = {"name": _Text("name_term", "name", True)}
_VERSION_TEXTS = {
    "name": _Text("name_term", "name", True),
    "run_id": _Text("run_term", "run_id", True),
    "source_path": _Text("source_term", "source", False),
}


def models_filter(filter_string: str | None) -> Compiled:
    """The filter of `search_registered_models`.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a filter that MLflow does not know.
    """
    filters = SearchModelUtils.parse_search_filter(filter_string)
    found = [_text(_MODEL_TEXTS, one) for one in filters if one["type"] == "attribute"]
    clauses = [none_of([term("is_deleted", True)])]
    if not _wants_prompts(filters):
        clauses.append(none_of([key_equals("tag_tokens", IS_PROMPT_TAG_KEY, "true")]))
    return _together(clauses, found + _tags(filters))


def versions_filter(filter_string: str | None) -> Compiled:
    """The filter of `search_model_versions`; errors as for `models_filter`."""
    filters = SearchModelVersionUtils.parse_search_filter(filter_string)
    attributes = [one for one in filters if one["type"] == "attribute"]
    for one in attributes:  # older MLflows know no NOT IN here
        _known(one, one["key"] == "version_number" or one["comparator"] in _VERSION_COMPARATORS)
    found = [_text(_VERSION_TEXTS, one) for one in attributes if one["key"] != "version_number"]
    clauses = [_version_number(one) for one in attributes if one["key"] == "version_number"]
    clauses.append(none_of([term("stage", STAGE_DELETED_INTERNAL)]))
    if not _wants_prompts(filters):
        clauses.append(none_of([term("is_prompt", True)]))
    return _together(clauses, found + _tags(filters))


def models_sort(order_by: Sequence[str] | None) -> list[Query]:
    """The order of `search_registered_models`: as asked, then by name.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an unknown key, or one that stands twice.
    """
    asked = []
    for clause in order_by or ():
        key, ascending = SearchUtils.parse_order_by_for_search_registered_models(clause)
        if key not in ("name", *SearchUtils.VALID_TIMESTAMP_ORDER_BY_KEYS):
            raise mlflow_error(
                f"Invalid order by key {key!r} specified. "
                f"Valid keys are {sorted(SearchUtils.RECOMMENDED_ORDER_BY_KEYS_REGISTERED_MODELS)}."
            )
        asked.append(("name_term" if key == "name" else "last_updated_time", ascending))
    return _sort(asked, [("name_term", True)], order_by)


def versions_sort(order_by: Sequence[str] | None) -> list[Query]:
    """The order of `search_model_versions`: as asked, by default the last updated first; then name, then number."""
    asked = []
    for clause in order_by or ["last_updated_timestamp DESC", "name ASC", "version_number DESC"]:
        _, key, ascending = SearchModelVersionUtils.parse_order_by_for_search_model_versions(clause)
        if key not in _VERSION_ORDER:
            raise mlflow_error(f"Invalid order by key {key!r} specified. Valid keys are {sorted(_VERSION_ORDER)}.")
        asked.append((_VERSION_ORDER[key], ascending))
    return _sort(asked, [("name_term", True), ("version", False)], order_by)


def _sort(
    asked: list[tuple[str, bool]], last: Iterable[tuple[str, bool]], order_by: Sequence[str] | None
) -> list[Query]:
    fields = [field for field, _ in asked]
    if len(set(fields)) < len(fields):
        raise mlflow_error(f"`order_by` contains duplicate fields: {order_by}")
    asked += [(field, ascending) for field, ascending in last if field not in fields]
    return [{field: "asc" if ascending else "desc"} for field, ascending in asked]


def _together(clauses: list[Query], found: Sequence[Compiled]) -> Compiled:
    return Compiled(all_of(clauses + [one.query for one in found]), tuple(c for one in found for c in one.checks))


def _wants_prompts(filters: Sequence[Filter]) -> bool:
    """Whether prompts are searched for; the first filter on their tag decides, as in MLflow's SQL store."""
    for one in filters:
        if one["type"] == "tag" and one["key"] == IS_PROMPT_TAG_KEY:
            return (one["comparator"], one["value"].lower()) in (("=", "true"), ("!=", "false"))
    return False


def _tags(filters: Sequence[Filter]) -> list[Compiled]:
    """The filters on tags. Those on the tag of prompts count only where prompts are searched for."""
    wants_prompts = _wants_prompts(filters)
    tags = [one for one in filters if one["type"] == "tag"]
    for one in tags:
        _known(one, one["comparator"] in _TEXT)
    return [_tag(one) for one in tags if wants_prompts or one["key"] != IS_PROMPT_TAG_KEY]


def _tag(one: Filter) -> Compiled:
    key, comparator, value = one["key"], one["comparator"], one["value"]
    found = key_equals("tag_tokens", key, value)
    if comparator == "=":
        return Compiled(found, ())
    if comparator == "!=":
        return Compiled(all_of([has_key("tag_tokens", key), none_of([found])]), ())
    like = Like(value, ignore_case=comparator == "ILIKE")
    query = any_of([like.query("tag_tokens", token_prefix(key)), term("cut_tags", key)])
    return Compiled(query, (lambda source: like.matches(source["tags"].get(key)),))


def _text(known: dict[str, _Text], one: Filter) -> Compiled:
    """A comparison of a text; nothing compares with a missing one, as with NULL in SQL."""
    comparator, value = one["comparator"], one["value"]
    _known(one, one["key"] in known)
    field, key, lists = known[one["key"]]
    _known(one, comparator in _TEXT or (lists and comparator in _LISTS))
    if comparator in ("LIKE", "ILIKE"):
        like = Like(value, ignore_case=comparator == "ILIKE")
        return Compiled(like.query(field), (lambda source: like.matches(source[key]),))
    found = equals(field, value) if comparator in _TEXT else terms(field, [bounded(v) for v in value])
    return Compiled(found if comparator in ("=", "IN") else all_of([exists(field), none_of([found])]), ())


def _version_number(one: Filter) -> Query:
    comparator, value = one["comparator"], one["value"]
    _known(one, comparator in ("=", "!=", *_NUMBER))
    try:
        number = int(value) if not isinstance(value, float) else None
    except ValueError:
        number = None
    if number is None:
        raise mlflow_error(f"Invalid value for numeric attribute 'version_number': {value!r}")
    if not -_LONG <= number < _LONG:
        below_all = number < 0
        matches_all = comparator in (("!=", ">", ">=") if below_all else ("!=", "<", "<="))
        return MATCH_ALL if matches_all else MATCH_NONE
    if comparator in _NUMBER:
        return between("version", **{_NUMBER[comparator]: number})
    found = term("version", number)
    return found if comparator == "=" else none_of([found])


def _known(one: Filter, known: bool) -> None:
    """Refuse an attribute or a comparator that MLflow's own store does not take there."""
    if not known:
        raise mlflow_error(f"Invalid comparator for {one['type']} {one['key']!r}: {one['comparator']}")
