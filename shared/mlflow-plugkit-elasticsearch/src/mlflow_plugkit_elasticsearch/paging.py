"""Page tokens: where the next page begins, in themselves, so that they survive restarts and any number of servers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mlflow_plugkit.errors import mlflow_error


def encode_token(after: Sequence[Any], *asked: Any) -> str:
    """The token for the page behind a hit.

    Args:
        after: the `sort` of the last hit of this page.
        asked: what the search was (filter, order, experiments): a token belongs to it.
    """
    text = json.dumps([_digests(asked), list(after)], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_token(token: str | None, *asked: Any, words: Sequence[str] = ()) -> list[Any] | None:
    """The `after` of a token; None for no token.

    Args:
        token: what `encode_token` made.
        asked: what this search is.
        words: for each part of `asked`, the sentence to raise where it differs; one for all of them without it.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a token that is damaged or belongs to another search.
    """
    if not token:
        return None
    try:
        digests, after = json.loads(base64.b64decode(token.encode(), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, UnicodeError):
        raise mlflow_error("Invalid page token. Give the token of the page before as it is, or none.") from None
    own = _digests(asked)
    if digests != own or not isinstance(after, list):
        text = "Invalid page token: it belongs to another search. Repeat the filter and the order of the page before."
        if isinstance(digests, list) and len(digests) == len(own) == len(words):
            text = next((word for word, one, other in zip(words, own, digests, strict=True) if one != other), text)
        raise mlflow_error(text)
    return after


def _digests(asked: Sequence[Any]) -> list[str]:
    return [hashlib.sha256(json.dumps(part, default=str, sort_keys=True).encode()).hexdigest()[:12] for part in asked]
