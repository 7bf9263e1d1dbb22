"""Request headers: one header, silent until its environment variable is set."""

from __future__ import annotations

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from mlflow_plugkit.errors import mlflow_error
from mlflow_reference_plugin.settings import ClientSettings


class ReferenceRequestHeaderProvider(RequestHeaderProvider):
    """Sends `MLFLOW_REFERENCE_TEAM` as `X-Reference-Team` with each request to the tracking server."""

    def in_context(self) -> bool:
        return ClientSettings.from_env().team is not None

    def request_headers(self) -> dict[str, str]:
        team = ClientSettings.from_env().team or ""
        # RFC 9110, section 5.5: a field value is printable; requests sends it as Latin-1.
        if not team.isprintable() or not all(ord(c) < 256 for c in team):
            raise mlflow_error(f"MLFLOW_REFERENCE_TEAM is {team!r}, which no header can carry: use printable Latin-1.")
        return {"X-Reference-Team": team} if team else {}
