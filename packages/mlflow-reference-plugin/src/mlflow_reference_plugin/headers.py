"""Request headers: one header, silent until its environment variable is set."""

from __future__ import annotations

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from mlflow_plugkit.logs import get_logger
from mlflow_reference_plugin.settings import ClientSettings


class ReferenceRequestHeaderProvider(RequestHeaderProvider):
    """Sends `MLFLOW_REFERENCE_TEAM` as `X-Reference-Team` with each request to the tracking server.

    MLflow swallows what a header provider raises; so a value that no header can carry is logged and left out.
    """

    def in_context(self) -> bool:
        return bool(ClientSettings.from_env().team)

    def request_headers(self) -> dict[str, str]:
        team = (ClientSettings.from_env().team or "").strip()
        # RFC 9110, section 5.5: a field value is printable; requests sends it as Latin-1.
        if not team.isprintable() or any(ord(c) > 255 for c in team):
            get_logger(__package__).warning("MLFLOW_REFERENCE_TEAM is not sent: a header takes printable Latin-1 only.")
            return {}
        return {"X-Reference-Team": team} if team else {}
