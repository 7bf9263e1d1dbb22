"""The host that a request goes to. MLflow tells a header provider nothing of it."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_DEPTH = 8


def request_target() -> str:
    """`host:port` of the request for which MLflow is asking, in lower case; "" where it goes to no HTTP server.

    `mlflow.utils.rest_utils.http_request(host_creds, endpoint, method)` asks the providers (read in 2.22.5 to
    3.17.2), and the host stands in its first argument. Where no such call is running, as in a direct call of
    the provider, it is the host of the current tracking URI.
    """
    frame = sys._getframe(1).f_back
    for _ in range(_DEPTH):
        if frame is None:
            break
        if frame.f_code.co_name == "http_request":
            host = getattr(frame.f_locals.get("host_creds"), "host", None)
            if isinstance(host, str):
                return host_and_port(host)
        frame = frame.f_back
    import mlflow

    return host_and_port(str(mlflow.get_tracking_uri()))


@lru_cache(maxsize=64)
def host_and_port(uri: str) -> str:
    """`host:port` of an HTTP URI, "" for any other."""
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname and parts.scheme in _PORTS else ""


def matches(pattern: str, target: str) -> bool:
    """Whether `host`, `host:port` or a pattern such as `*.example.com` names the target."""
    pattern = pattern.lower()
    host = target.rpartition(":")[0]
    return fnmatchcase(target, pattern) or fnmatchcase(host, pattern)
