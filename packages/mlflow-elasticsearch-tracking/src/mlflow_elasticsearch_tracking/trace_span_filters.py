"""Conditions on spans: all of a filter must hold for one and the same span.

Conditions on name, type and status alone are answered by the traces' documents, which know the combinations that
occur. A condition on the text needs the spans' own documents: trigrams find candidates, their texts decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_elasticsearch_tracking.grams import may_match
from mlflow_elasticsearch_tracking.trace_clauses import (
    Check,
    member_clause,
    regular_expression,
    text_clause,
    text_test,
)
from mlflow_elasticsearch_tracking.trace_documents import kind_token
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import bounded
from mlflow_plugkit_elasticsearch.like import Like
from mlflow_plugkit_elasticsearch.queries import MATCH_NONE, Query, between, exists, term, terms

_FIELDS = {"type": "span_types", "status": "span_statuses", "name": "span_names"}
_POSITION = {"type": 0, "status": 1, "name": 2}
_ATTRIBUTE = "attributes."


@dataclass
class SpanFilter:
    """Conditions on one span.

    Attributes:
        kinds: (field, comparator, value) on name, type and status.
        texts: (query, test) on the content.
        start_ms: the earliest start that counts.
    """

    kinds: list[tuple[str, str, Any]] = field(default_factory=list)
    texts: list[tuple[Query, Callable[[str], bool]]] = field(default_factory=list)
    start_ms: float | None = None

    def not_before(self, start_ms: float) -> None:
        """Count only spans that start then or later."""
        self.start_ms = start_ms if self.start_ms is None else max(self.start_ms, start_ms)

    def add(self, key: str, comparator: str, value: Any) -> None:
        """Add a condition that MLflow's grammar admits."""
        if key in _FIELDS:
            self.kinds.append((key, comparator, value))
        elif key.startswith(_ATTRIBUTE):
            self.texts.append(_attribute(key[len(_ATTRIBUTE) :].strip("`"), comparator, value))
        else:
            self.texts.append(_text(comparator, value))

    # Answered by the traces' documents.

    def trace_queries(self) -> list[Query]:
        """What the document of a trace with such a span must hold."""
        queries = [_kind_query(*condition) for condition in self.kinds]
        combined = self._combined()
        return queries if combined is None else [combined]

    def trace_check(self) -> Check | None:
        """The check of a trace that `trace_queries` found; None where they are exact."""
        if len(self.kinds) < 2 and all(_is_exact(*condition) for condition in self.kinds):
            return None
        if self._combined() is not None:
            return None
        tests = [(_POSITION[key], text_test(comparator, value)) for key, comparator, value in self.kinds]

        def check(source: Mapping[str, Any]) -> bool:
            kinds = source.get("kinds", ())
            return any(all(_given(kind, at) and test(kind[at]) for at, test in tests) for kind in kinds)

        return check

    def _combined(self) -> Query | None:
        """One query where every condition is an equality, each of another field, and at least two are given."""
        wanted = {key: value for key, comparator, value in self.kinds if comparator == "="}
        if len(wanted) < 2 or len(wanted) != len(self.kinds):
            return None
        if wanted.get("type") == "":
            return MATCH_NONE
        kind, status, name = (bounded(wanted[k]) if k in wanted else None for k in ("type", "status", "name"))
        if kind is not None and status is not None:
            if name is not None:
                return term("span_kinds", kind_token(kind, status, name))
            return {"prefix": {"span_kinds": {"value": kind_token(kind, status, "")}}}
        parts = ("*" if part is None else _escaped(part) for part in (kind, status, name))
        return {"wildcard": {"span_kinds": {"value": kind_token(*parts)}}}

    # Answered by the spans' documents.

    @property
    def needs_spans(self) -> bool:
        """Whether the traces' documents alone cannot answer."""
        return bool(self.texts)

    def span_queries(self) -> list[Query]:
        """What the document of such a span must hold."""
        queries = [text_clause(key, key, comparator, value)[0] for key, comparator, value in self.kinds]
        queries += [query for query, _ in self.texts]
        if self.start_ms is not None:
            queries.append(between("start_ms", gte=self.start_ms))
        return queries

    def matches(self, span: Mapping[str, Any]) -> bool:
        """Whether a span that `span_queries` found meets the conditions."""
        checks = (text_clause(key, key, comparator, value)[1] for key, comparator, value in self.kinds)
        if not all(check(span) for check in checks if check is not None):
            return False
        return all(test(span["content"]) for _, test in self.texts)


def _given(kind: Sequence[str], at: int) -> bool:
    """Whether a span has what is compared: no condition holds for the type of one without a type."""
    return at != _POSITION["type"] or bool(kind[at])


def _kind_query(key: str, comparator: str, value: Any) -> Query:
    name = _FIELDS[key]
    if comparator in ("=", "IN"):
        return terms(name, [bounded(v) for v in ([value] if isinstance(value, str) else value)])
    if comparator in ("!=", "NOT IN"):
        return member_clause(name, "", "!=", [bounded(v) for v in ([value] if isinstance(value, str) else value)])
    if comparator == "RLIKE":
        regular_expression(value)
        return exists(name)
    return Like(value, ignore_case=comparator == "ILIKE").query(name)


def _is_exact(key: str, comparator: str, value: Any) -> bool:
    if comparator in ("LIKE", "ILIKE"):
        return Like(value, ignore_case=comparator == "ILIKE").exact
    return comparator != "RLIKE"


def _text(comparator: str, pattern: str) -> tuple[Query, Callable[[str], bool]]:
    like = Like(pattern, ignore_case=comparator == "ILIKE")
    return may_match("grams", pattern), like.matches


def _attribute(name: str, comparator: str, value: Any) -> tuple[Query, Callable[[str], bool]]:
    """A comparison of `"name": value` in the JSON text of a span, as MLflow's SQL store compares it."""
    if comparator in ("LIKE", "ILIKE"):
        return _text(comparator, f'%"{name}"{value}%')
    if comparator == "RLIKE":
        front = '"\\\\"' if value.startswith("^") else '"\\\\".*'
        back = '\\\\"' if value.endswith("$") else ""
        inner = value[value.startswith("^") : len(value) - value.endswith("$")]
        expression = regular_expression(f'"{name}": {front}{inner}{back}')
        return may_match("grams", f'%"{name}": %') if name.isidentifier() else exists("span_id"), (
            lambda content: expression.search(content) is not None
        )
    if comparator == "!=":
        return exists("span_id"), lambda content: True
    if comparator == "=":
        # MLflow compares the whole text of the span, which never equals the value.
        return MATCH_NONE, lambda content: False
    raise mlflow_error(f"span.attributes.{name} cannot be compared by {comparator}. Use LIKE, ILIKE or RLIKE.")


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?\\" else c for c in text)
