"""What may stand in a tag: valid names, values within the limits, and no secrets."""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache

from mlflow_plugkit.uri import HIDDEN, redact_text

LONGEST_KEY = 250
LONGEST_VALUE = 5000
"""Characters. This MLflow takes 8000 (mlflow.utils.validation.MAX_TAG_VAL_LENGTH in 2.22 to 3.17), but servers of
earlier releases refuse a run with a tag above 5000."""
MARKER = " ... [truncated]"
KEY_MARKER = ".truncated"

_LONGEST_READ = 2 * LONGEST_VALUE
_NAME = re.compile(r"\w(?:[\w./ -]*\w)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_USERINFO = re.compile(r"(?<=://)[^/?#\s@]+@")
_SECRET_NAME = re.compile(
    r"passw|pwd|secret|token|api_?key|access_?key|private_?key|credential|auth|cookie|session", re.I
)
_TOKENS = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS access key ids
    r"|\bAIza[\w-]{30,}"  # Google API keys
    r"|\bsk-[\w-]{20,}|\bsk_live_\w{16,}|\bdapi[0-9a-f]{32}\b|\bnpm_\w{36}|\bpypi-[\w-]{32,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_LONG_WORD = re.compile(r"[A-Za-z0-9+]{32,}={0,2}")


def is_secret_name(variable: str) -> bool:
    """Whether an environment variable's name says that its value is a secret."""
    return bool(_SECRET_NAME.search(variable))


def scrub(text: str) -> str:
    """The text without passwords and users of URLs, values of secret-sounding names, and what looks like a token.

    A word of 32 or more letters and digits is taken for a token if it mixes capitals, small letters and at least
    three digits: digests, UUIDs and commit ids are in one case.
    """
    text = _USERINFO.sub("", text)
    text = _TOKENS.sub(HIDDEN, text)
    text = _LONG_WORD.sub(lambda m: HIDDEN if _is_random(m[0]) else m[0], text)
    return redact_text(text)


def _is_random(word: str) -> bool:
    digits = sum(c.isdigit() for c in word)
    return digits >= 3 and any(c.isupper() for c in word) and any(c.islower() for c in word)


def tag_value(value: str, *, lines: bool = False) -> str:
    """The value as it may be sent: scrubbed, in valid UTF-8, at most LONGEST_VALUE characters; "" if nothing is left.

    Args:
        value: any text.
        lines: keep line breaks and indentation.
    """
    if len(value) <= 200 and not lines:
        return _short(value)
    return _clean(value[:_LONGEST_READ], cut=len(value) > LONGEST_VALUE, lines=lines)


@lru_cache(maxsize=1024)
def _short(value: str) -> str:
    return _clean(value, cut=False, lines=False)


def _clean(value: str, *, cut: bool, lines: bool) -> str:
    text = _CONTROL.sub(" ", value.encode("utf-8", "replace").decode("utf-8"))
    text = scrub(text if lines else " ".join(text.split()))
    if cut or len(text) > LONGEST_VALUE:
        # Once more: the cut may leave a form that is only recognised now.
        text = scrub(text[: LONGEST_VALUE - len(MARKER)])[: LONGEST_VALUE - len(MARKER)] + MARKER
    return text


def tag_key(key: str) -> str | None:
    """The key as MLflow takes it, cut with a marker where it is too long, or None where MLflow refuses it.

    Letters, digits, `_`, `.`, `-`, `/` and blanks (mlflow.utils.validation), no path that normalises to another one,
    and none of MLflow's own namespace `mlflow.`.
    """
    key = key.strip()
    if not _NAME.fullmatch(key) or posixpath.normpath(key) != key or key.startswith("mlflow."):
        return None
    if len(key) > LONGEST_KEY:
        key = key[: LONGEST_KEY - len(KEY_MARKER)].rstrip("./ -") + KEY_MARKER
    return key
