"""Substring search by trigrams: which texts may match a LIKE pattern; `Like` tells which of them do.

Texts and patterns are compared in folded case, so that one set of trigrams serves LIKE and ILIKE; folding works
character by character, so that a part of a text stays a part of it. Analysis beyond splitting at spaces is not left
to Elasticsearch: n-gram tokenizers are a module that a cluster may lack.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, Query, all_of

LENGTH = 3
#: Trigrams of a pattern that are asked for: more narrow the candidates no further.
MOST = 24
_SPACE = re.compile(r"\s")
_OTHER_SPACE = re.compile(r"[\t-\r\x1c-\x1f]")
#: Stands for a space, which separates terms. JSON text never holds it as it is.
_FILLER = "\x01"
_CUT = f',{_FILLER}"'
_MOST_REMEMBERED = 1_000


def grams(text: str) -> str:
    """The distinct trigrams of a text, separated by spaces.

    Spans repeat each other: a text is cut at what stands between the fields of JSON, with as much overlap as no
    trigram is longer than, and the trigrams of pieces seen before are not made again.
    """
    pieces = _folded(text).split(_CUT)
    last = len(pieces) - 1
    found: set[str] = set()
    for number, piece in enumerate(pieces):
        whole = (_CUT if number else "") + piece + (_CUT if number < last else "")
        found |= _remembered(whole) if len(whole) <= _MOST_REMEMBERED else _trigrams(whole)
    return " ".join(found)


def _trigrams(text: str) -> frozenset[str]:
    return frozenset([text[i : i + LENGTH] for i in range(len(text) - LENGTH + 1)])


@lru_cache(maxsize=512)
def _remembered(text: str) -> frozenset[str]:
    return _trigrams(text)


def may_match(field: str, pattern: str) -> Query:
    """The query for texts that may match the LIKE pattern: all that do, and a few that do not."""
    wanted: dict[str, None] = {}
    short: dict[str, None] = {}
    for part in re.split("[%_]", pattern):
        folded = _folded(part)
        if len(folded) >= LENGTH:
            wanted |= dict.fromkeys(folded[i : i + LENGTH] for i in range(len(folded) - LENGTH + 1))
        elif len(folded) == LENGTH - 1:
            short[folded] = None
    if not wanted and not short:
        return MATCH_ALL
    chosen = list(wanted)
    if len(chosen) > MOST:
        chosen = chosen[:: -(-len(chosen) // MOST)]
    queries: list[Query] = [{"term": {field: {"value": gram}}} for gram in chosen]
    # The text of a span is a JSON object: its last two characters are never what somebody looks for.
    queries += [] if wanted else [{"prefix": {field: {"value": part}}} for part in short]
    return all_of(queries)


def _folded(text: str) -> str:
    if text.isascii() and not _OTHER_SPACE.search(text):
        return text.lower().replace(" ", _FILLER)
    return _SPACE.sub(_FILLER, text.casefold())
