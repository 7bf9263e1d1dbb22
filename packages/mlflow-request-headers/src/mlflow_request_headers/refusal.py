"""How a header provider stops a request, although MLflow swallows what it raises.

`mlflow.tracking.request_header.registry.resolve_request_headers` logs any exception of a provider and sends
the request without its headers (read in 2.22.5 to 3.17.2). What it passes on untouched are the names and the
values. So a refusal is a header whose name and value are text that raises as soon as requests uses it:
`CaseInsensitiveDict` lower-cases each name before a request is prepared, and http.client encodes each value
before it is written. Nothing leaves the machine, and MLflow raises
`MlflowException: API request to ... failed with exception <the reason>`.
"""

from __future__ import annotations

from typing import Any

from mlflow_plugkit.errors import mlflow_error


class _Raising(str):
    """Text that cannot be sent."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, text: str, reason: str) -> _Raising:
        self = super().__new__(cls, text)
        self.reason = reason
        return self

    def __getnewargs__(self) -> Any:
        return str(self), self.reason


class RefusedName(_Raising):
    """A header's name that raises when requests puts it among the others."""

    def lower(self) -> str:
        raise mlflow_error(self.reason)


class RefusedValue(_Raising):
    """A header's value that raises when it is written to the connection."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise mlflow_error(self.reason)


def refusal(reason: str) -> dict[str, str]:
    """Headers with which no request can be sent.

    Args:
        reason: what the user reads: what is wrong and what to do.
    """
    return {RefusedName("X-Request-Refused", reason): RefusedValue("refused", reason)}
