"""Kerberos by SPNEGO: `Authorization: Negotiate ...` (RFC 4559) through the system's GSS-API (extra `kerberos`)."""

from __future__ import annotations

import base64
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.requirements import require
from mlflow_request_auth.hosts import Origin
from mlflow_request_auth.settings import KerberosSettings

SPNEGO = "1.3.6.1.5.5.2"


class KerberosCredential:
    """A new Negotiate token for each request: servers refuse one that they have seen. Tickets are cached by GSS-API.

    It is sent with the first request, not after a challenge, so that bodies need not be sent twice.
    With a client keytab GSS-API renews the ticket itself, for as long as training runs.
    """

    header = "Authorization"

    def __init__(self, settings: KerberosSettings) -> None:
        self._settings = settings
        self._gssapi: Any = require("gssapi", distribution="mlflow-request-auth", extra="kerberos")

    def value(self, origin: Origin, *, resendable: bool) -> str:
        gssapi = self._gssapi
        host = self._settings.kerberos_host or origin.host
        try:
            name = gssapi.Name(f"{self._settings.kerberos_service}@{host}", gssapi.NameType.hostbased_service)
            context = gssapi.SecurityContext(
                name=name, creds=self._credentials(), mech=gssapi.OID.from_int_seq(SPNEGO), usage="initiate"
            )
            token = context.step()
        except gssapi.exceptions.GSSError as exc:
            raise mlflow_error(
                f"Kerberos gave no ticket for {self._settings.kerberos_service}@{host}: {_reason(exc)}. Run `kinit`, "
                "or name a client keytab in MLFLOW_AUTH_KERBEROS_KEYTAB; `klist` shows the tickets that there are.",
                "UNAUTHENTICATED",
            ) from None
        return f"Negotiate {base64.b64encode(token).decode()}"

    def replacement(self, origin: Origin, refused: str) -> str | None:
        return self.value(origin, resendable=True)

    def accepted(self) -> None:
        """Nothing to learn from it."""

    def _credentials(self) -> Any:
        gssapi, settings = self._gssapi, self._settings
        if not settings.kerberos_principal and not settings.kerberos_keytab_path:
            return None
        name = None
        if settings.kerberos_principal:
            name = gssapi.Name(settings.kerberos_principal, gssapi.NameType.kerberos_principal)
        store = {"client_keytab": settings.kerberos_keytab_path} if settings.kerberos_keytab_path else None
        return gssapi.Credentials(usage="initiate", name=name, store=store)


def _reason(exc: Exception) -> str:
    """The GSS-API's own sentences, without the library's wrapping."""
    texts = [t for code in ("maj_code", "min_code") if (t := _text(exc, code))]
    return "; ".join(texts) or type(exc).__name__


def _text(exc: Any, code: str) -> str:
    try:
        return str(exc.get_all_statuses(getattr(exc, code), code == "maj_code")[-1]).strip().rstrip(".")
    except Exception:  # noqa: BLE001 # a broken status table must not hide the error itself
        return ""
