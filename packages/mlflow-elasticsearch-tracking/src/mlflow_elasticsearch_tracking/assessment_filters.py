"""Filters on assessments: `feedback.name = 'yes'`, `expectation.name > 0.5`, `feedback.name IS NULL`.

An assessment counts if it is valid. One about a session counts for each trace of that session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow_elasticsearch_tracking.assessment_documents import assessment_key, is_about_session
from mlflow_elasticsearch_tracking.trace_clauses import Check, member_clause, text_test
from mlflow_plugkit_elasticsearch.encode import SEPARATOR, bounded, key_token, sortable_float, token_prefix
from mlflow_plugkit_elasticsearch.like import Like
from mlflow_plugkit_elasticsearch.queries import Query, any_of, between, none_of, term, terms

AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class AssessmentFilter:
    """One comparison; values are compared as JSON text, `=` and `!=` also with the text that a string holds."""

    def __init__(self, kind: str, name: str, comparator: str, value: Any) -> None:
        self.kind, self.name, self.comparator, self.value = kind, name, comparator, value
        self.key = assessment_key(kind, name)

    def covering(self, sessions: Sequence[str]) -> tuple[Query, Check | None]:
        """For the traces: what is assessed itself or belongs to one of the sessions."""
        query, exact = self._query("assessment_tokens", "assessment_numbers")
        if sessions:
            query = any_of([query, terms("session_id", sessions)])
        if self.comparator == "IS NULL":
            return none_of([query]), None
        if exact:
            return query, None
        in_sessions = frozenset(sessions)
        return query, lambda source: source.get("session_id") in in_sessions or self._in(source, lambda row: True)

    def about_session(self) -> tuple[Query, Check | None]:
        """For the traces that have such an assessment of their whole session."""
        query, exact = self._query("session_tokens", "session_numbers")
        return query, None if exact else lambda source: self._in(source, is_about_session)

    def _query(self, tokens: str, numbers: str) -> tuple[Query, bool]:
        before = token_prefix(self.key)
        if self.comparator in ("IS NULL", "IS NOT NULL"):
            return term(tokens, key_token(self.key)), True
        if self.comparator in _BOUNDS:
            bounds = {"gt": before, "lt": before[:-1] + AFTER_SEPARATOR}
            side = _BOUNDS[self.comparator]
            bounds.pop(side[:2])
            return between(numbers, **bounds, **{side: before + sortable_float(float(self.value))}), True
        if self.comparator in ("=", "!="):
            values = [bounded(v) for v in _forms(self.value)]
            return member_clause(tokens, before, self.comparator, values), True
        if self.comparator in ("LIKE", "ILIKE"):
            like = Like(self.value, ignore_case=self.comparator == "ILIKE")
            return like.query(tokens, before), like.exact
        return term(tokens, key_token(self.key)), False

    def _in(self, source: Mapping[str, Any], counts: Callable[[Mapping[str, Any]], bool]) -> bool:
        rows = (row for row in source.get("a", ()) if row["valid"] and counts(row))
        return any(self._matches(row) for row in rows if (row["type"], row["name"]) == (self.kind, self.name))

    def _matches(self, row: Mapping[str, Any]) -> bool:
        return text_test(self.comparator, self.value)(row["value"])


def _forms(value: str) -> list[str]:
    return [value, json.dumps(value)]
