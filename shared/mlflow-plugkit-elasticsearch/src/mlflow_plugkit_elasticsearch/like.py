"""SQL's LIKE and ILIKE on terms: `%` stands for any text, `_` for one character; there is no escape character.

Case is as MLflow has it on SQLite: LIKE heeds it, ILIKE takes the letters A-Z and a-z for equal and no others.
Lucene turns a pattern into an automaton and refuses one that is too complex (10,000 steps to make it deterministic,
and `index.max_regex_length` for regular expressions). Such patterns become a simpler query that finds more, and
`matches` tells which of its hits are right.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from mlflow_plugkit_elasticsearch.encode import bounded, utf8

#: What of a pattern behind its first `%` goes into the automaton: characters, and `_` among them.
MOST_BEHIND, MOST_SINGLES = 60, 5
#: Bytes before the first `%`. An automaton has fewer than 1,000 states, 251 of them for a key before the pattern.
MOST_FRONT = 480
#: Characters of a regular expression; a key before it has 502 at most, `index.max_regex_length` is 1,000.
MOST_REGEXP = 480
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_REGEXP = {"%": ".*", "_": "."}
_WILDCARD = {"%": "*", "_": "?", "*": "\\*", "?": "\\?", "\\": "\\\\"}
_LETTER, _WILD = re.compile("[A-Za-z]"), re.compile("[%_]")


class Like:
    """One pattern.

    Args:
        pattern: as the user wrote it.
        ignore_case: ILIKE.

    Attributes:
        exact: whether `query` alone finds the right documents; otherwise it finds these and more.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        pattern = re.sub("%+", "%", pattern)
        self._folds = ignore_case and _LETTER.search(pattern) is not None
        self._pattern = pattern.translate(_FOLD) if self._folds else pattern
        simple = _simple(self._pattern)
        self._searched = _short(simple) if self._folds else simple
        self.exact = self._searched == self._pattern

    def query(self, field: str, before: str = "") -> dict[str, Any]:
        """The query on a keyword field whose terms begin with `before`, which is compared as it is."""
        searched = self._searched
        if self._folds:
            regexp = _literal(before) + "".join(_REGEXP.get(c) or _any_case(c) for c in searched)
            return {"regexp": {field: {"value": regexp, "flags": "NONE"}}}
        if not _WILD.search(searched):
            return {"term": {field: {"value": before + bounded(searched)}}}
        if searched.endswith("%") and not _WILD.search(searched, 0, len(searched) - 1):
            return {"prefix": {field: {"value": before + searched[:-1]}}}
        wildcard = "".join(_WILDCARD.get(c, c) for c in searched)
        return {"wildcard": {field: {"value": _escaped(before) + wildcard}}}

    def matches(self, value: str | None) -> bool:
        """Whether a value matches; no value never does. Each part of the pattern is looked for once."""
        if value is None:
            return False
        text = value.translate(_FOLD) if self._folds else value
        first, *rest = _parts(self._pattern)
        if not rest:
            return first.expression.fullmatch(text) is not None
        found = first.expression.match(text)
        for part in rest[:-1]:
            found = part.expression.search(text, found.end()) if found else None
        start = len(text) - rest[-1].length
        return found is not None and start >= found.end() and rest[-1].expression.fullmatch(text, start) is not None


class _Part:
    """What stands between two `%`: text of a fixed length."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        self.expression = re.compile("".join("." if c == "_" else re.escape(c) for c in text), re.DOTALL)


@lru_cache(maxsize=256)
def _parts(pattern: str) -> tuple[_Part, ...]:
    return tuple(_Part(text) for text in pattern.split("%"))


def _simple(pattern: str) -> str:
    """The pattern, or one that matches more and needs a small automaton."""
    if not _WILD.search(pattern):
        return pattern
    front, wild, behind = pattern.partition("%")
    if len(utf8(front)) > MOST_FRONT:
        return re.sub("%+", "%", utf8(front)[:MOST_FRONT].decode(errors="ignore") + "%")
    if behind.count("_") > MOST_SINGLES:
        behind = behind.replace("_", "%")
    if len(behind) > MOST_BEHIND:
        behind = behind[:MOST_BEHIND] + "%"
    return re.sub("%+", "%", front + wild + behind)


def _short(pattern: str) -> str:
    """The pattern, or one that matches more and makes a short regular expression."""
    length = 0
    for position, character in enumerate(pattern):
        length += len(utf8(_REGEXP.get(character) or _any_case(character)))
        if length > MOST_REGEXP:
            return re.sub("%+", "%", pattern[:position] + "%")
    return pattern


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?\\" else c for c in text)


def _literal(text: str) -> str:
    return "".join(c if c.isalnum() else f"\\{c}" for c in text)


def _any_case(character: str) -> str:
    if _LETTER.match(character):
        return f"[{character.lower()}{character.upper()}]"
    return _literal(character)
