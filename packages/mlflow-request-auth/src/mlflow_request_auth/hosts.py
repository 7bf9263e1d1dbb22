"""Which server a URL names, and which servers may receive credentials. Pure functions."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
# Where parsers differ in what they take for the host: none of these stands in a URL that means well.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a URL (RFC 6454); the host in lower case, without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if _PORTS.get(self.scheme) == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine by definition: `localhost` or a loopback address."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is sent there: TLS, or a connection within this machine."""
        return self.scheme == "https" or self.is_loopback


@lru_cache(maxsize=256)
def origin_of(url: str) -> Origin | None:
    """The origin of an `http(s)` URL, or None for any other, and for one that is malformed or ambiguous."""
    if _AMBIGUOUS.search(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        return None
    return Origin(scheme, parts.hostname.lower().rstrip("."), _PORTS[scheme] if port is None else port)


def request_origin(url: str) -> Origin | None:
    """`origin_of` for the URLs of requests: the many paths of one server are one entry of its cache."""
    end = url.find("/", 8)
    return origin_of(url if end < 0 else url[:end])


def tracking_origins() -> tuple[Origin | None, Origin | None]:
    """The servers that `MLFLOW_TRACKING_URI` and `MLFLOW_REGISTRY_URI` name.

    `mlflow.set_tracking_uri` and `set_registry_uri` write the variables, so that these say what MLflow uses.
    """
    return tuple(origin_of(os.environ.get(v, "")) for v in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"))  # type: ignore[return-value]


def is_listed(origin: Origin, entries: Iterable[str]) -> bool:
    """Whether an allow-list names the origin: by `host`, for every port, or by `host:port`."""
    return any(matches(origin, entry) for entry in entries)


def matches(origin: Origin, entry: str) -> bool:
    """Whether `host`, `host:port` or a URL names the origin. There are no wildcards."""
    entry = entry.strip().lower()
    if not entry:
        return False
    if "://" in entry:
        return origin_of(entry) == origin
    named = origin_of(f"{origin.scheme}://{entry}")
    if named is None:
        return False
    has_port = entry.rpartition("]")[2].rpartition(":")[1] == ":"
    return named.host == origin.host and (not has_port or named.port == origin.port)


def keeps_credentials(before: Origin, after: Origin | None) -> bool:
    """Whether a redirect stays with the server: the same origin, or its step up to TLS on the standard ports."""
    if after == before:
        return True
    up = ("http", 80, "https", 443)
    return (
        after is not None and after.host == before.host and (before.scheme, before.port, after.scheme, after.port) == up
    )
