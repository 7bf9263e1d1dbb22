"""Which header names a provider may send, and which values a header can carry."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "cookie2", "set-cookie"})
_CONNECTION = frozenset({
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "host",
    "content-length", "content-encoding", "http2-settings",
})  # fmt: skip
_MLFLOW = frozenset({"content-type", "accept", "accept-encoding"})
_MLFLOW_PREFIXES = ("x-mlflow-", "x-databricks-")

LONGEST_VALUE = 4096
LONGEST_TOTAL = 8000
"""Characters of all names and values together. Apache and nginx refuse a header line above 8 KB by default."""


def name_problem(name: str) -> str | None:
    """Why the header cannot be sent by a provider, or None.

    Sources: names are tokens (RFC 9110, 5.1); hop-by-hop fields belong to the connection (RFC 9110, 7.6.1);
    a header provider's Authorization loses to a `~/.netrc` entry; MLflow joins equal names with a blank.
    """
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        return "it is no legal header name: letters, digits and - only"
    if lower in _CREDENTIALS:
        return "credentials are the business of an auth provider (MLFLOW_TRACKING_AUTH, such as mlflow-request-auth)"
    if lower in _CONNECTION:
        return "it belongs to the connection, which requests manages"
    if lower in _MLFLOW or lower.startswith(_MLFLOW_PREFIXES):
        return "MLflow's client sets it itself"
    return None


def value_problem(value: str) -> str | None:
    """Why the value cannot be a header's (RFC 9110, 5.5, and what http.client encodes), or None."""
    if len(value) > LONGEST_VALUE:
        return f"its value has {len(value)} characters, more than {LONGEST_VALUE}"
    if _VALUE.fullmatch(value):
        return None
    if "\r" in value or "\n" in value:
        return "its value holds a line break"
    if any(ord(c) > 255 for c in value):
        return "its value holds a character outside Latin-1; write it as ASCII, for instance percent-encoded"
    return "its value holds a control character"


def canonical(name: str) -> str:
    """The name as it is sent. MLflow joins ours to its own User-Agent only if both are spelt alike."""
    return "User-Agent" if name.lower() == "user-agent" else name
