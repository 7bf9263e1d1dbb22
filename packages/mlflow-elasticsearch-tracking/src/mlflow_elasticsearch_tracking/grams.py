"""Substring search by trigrams: which texts may match a LIKE pattern; `Like` tells which of them do.

Texts and patterns are compared in folded case, so that one set of trigrams serves LIKE and ILIKE; folding works
character by character, so that a part of a text stays a part of it. Analysis beyond splitting at spaces is not left
to Elasticsearch: n-gram tokenizers are a module that a cluster may lack.
"""

from __future__ import annotations

import re

from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, Query, all_of

LENGTH = 3
#: Trigrams of a pattern that are asked for: more narrow the candidates no further.
MOST = 24
_SPACE = re.compile(r"\s")
#: Stands for a space, which separates terms. JSON text never holds it as it is.
_FILLER = "\x01"


def grams(text: str) -> str:
    """The distinct trigrams of a text, separated by spaces."""
    folded = _folded(text)
    return " ".join({folded[i : i + LENGTH] for i in range(len(folded) - LENGTH + 1)})


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
    if text.isascii():
        return text.lower().replace(" ", _FILLER)
    return _SPACE.sub(_FILLER, text.casefold())
