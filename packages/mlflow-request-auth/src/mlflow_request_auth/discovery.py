"""The provider's endpoints: OpenID Connect Discovery 1.0, else OAuth 2.0 metadata (RFC 8414), else as configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests
from authlib.oauth2.rfc8414 import get_well_known_url

from mlflow_plugkit.errors import mlflow_error
from mlflow_request_auth.hosts import origin_of
from mlflow_request_auth.settings import OAuth2Settings
from mlflow_request_auth.source import Unavailable

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Endpoints:
    """The endpoints that a client needs; None where the provider names none."""

    token: str
    device: str | None = None
    authorization: str | None = None
    revocation: str | None = None
    issuer: str | None = None
    sends_issuer: bool = False


def discover(settings: OAuth2Settings, session: requests.Session) -> Endpoints:
    """The endpoints of the provider; configured ones win over discovered ones.

    With `tls_client_auth` those for mutual TLS are taken where the provider has others (RFC 8705, 5).

    Raises:
        Unavailable: the provider does not answer.
        MlflowException: there is no metadata, it is another issuer's, or an endpoint is not protected.
    """
    data = _metadata(settings, session) if settings.issuer else {}
    if settings.client_auth_method == "tls_client_auth" and isinstance(data.get("mtls_endpoint_aliases"), dict):
        data = data | data["mtls_endpoint_aliases"]
    token = settings.token_url or data.get("token_endpoint")
    if not token:
        raise mlflow_error(f"The metadata of {settings.issuer} names no token endpoint. Set MLFLOW_AUTH_TOKEN_URL.")
    found = Endpoints(
        token=str(token),
        device=settings.device_url or data.get("device_authorization_endpoint"),
        authorization=settings.authorization_url or data.get("authorization_endpoint"),
        revocation=settings.revocation_url or data.get("revocation_endpoint"),
        issuer=data.get("issuer"),
        sends_issuer=data.get("authorization_response_iss_parameter_supported") is True,
    )
    for url in (found.token, found.device, found.authorization, found.revocation):
        if url:
            check_protected(str(url), settings)
    return found


def check_protected(url: str, settings: OAuth2Settings) -> None:
    """Refuse a URL of the provider that would carry secrets in the open.

    Raises:
        MlflowException: it is plain http to another machine, or no URL.
    """
    origin = origin_of(url)
    if origin is None:
        raise mlflow_error(f"{url!r} is no http or https URL. Check MLFLOW_AUTH_ISSUER and MLFLOW_AUTH_TOKEN_URL.")
    if not origin.is_private and not settings.issuer_allow_http:
        raise mlflow_error(
            f"The token provider's URL {url!r} is plain http, on which secrets could be read on their way. Use https, "
            "or set MLFLOW_AUTH_ISSUER_ALLOW_HTTP=true if the network is trusted.",
            "PERMISSION_DENIED",
        )


def _metadata(settings: OAuth2Settings, session: requests.Session) -> dict[str, Any]:
    issuer = (settings.issuer or "").rstrip("/")
    check_protected(issuer, settings)
    tried = [f"{issuer}/.well-known/openid-configuration", get_well_known_url(issuer, external=True)]
    for url in tried:
        response = session.get(
            url,
            timeout=settings.timeout,
            allow_redirects=False,
            headers={"Accept": "application/json"},
            auth=_no_credentials,
        )
        if response.status_code in BUSY:
            raise Unavailable(f"{url} answered HTTP {response.status_code}.")
        if response.status_code != 200:
            continue
        try:
            data = response.json()
        except ValueError:
            continue
        if isinstance(data, dict):
            _check_issuer(str(data.get("issuer", "")), issuer)
            return data
    raise mlflow_error(
        f"There is no provider metadata at {' or '.join(tried)}. Check MLFLOW_AUTH_ISSUER, or set "
        "MLFLOW_AUTH_TOKEN_URL."
    )


def _check_issuer(said: str, wanted: str) -> None:
    if said.rstrip("/") != wanted:  # RFC 8414, 3.3: else one provider could pass as another
        raise mlflow_error(f"MLFLOW_AUTH_ISSUER is {wanted!r}, but the provider there calls itself {said!r}.")


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth object that adds nothing, so that requests does not look into ~/.netrc."""
    return request
