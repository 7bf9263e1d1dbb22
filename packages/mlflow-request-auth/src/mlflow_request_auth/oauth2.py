"""OAuth 2.0: one method for each grant, one choke point for errors. authlib speaks the protocol."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import redact_text
from mlflow_request_auth.bearer import BearerCredential, store_for
from mlflow_request_auth.client_auth import TLSClientAdapter, method_for, read_token_file, secret_for
from mlflow_request_auth.discovery import BUSY, Endpoints, discover
from mlflow_request_auth.errors import OAUTH_ERRORS, TEMPORARY
from mlflow_request_auth.settings import NEEDS_LOGIN, OAuth2Settings
from mlflow_request_auth.source import TokenSource, Unavailable
from mlflow_request_auth.store import TokenStore
from mlflow_request_auth.tokens import Token, token_from_response

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 # a name of RFC 8693
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 # likewise
REDISCOVER_SECONDS = 3600.0
SKEW_SECONDS = 10.0
"""A provider's clock that differs by more is followed when assertions are signed."""


def credential(settings: OAuth2Settings) -> BearerCredential:
    """The credential of the provider `oauth2`. Nothing is asked of the provider before the first request."""
    client = OAuth2Client(settings)
    return BearerCredential(TokenSource(client.fetch, store_of(settings), settings))


def store_of(settings: OAuth2Settings) -> TokenStore:
    """Where this client's token is kept: one place for each provider, client, grant, and what was asked for."""
    seed = settings.refresh_token.get_secret_value() if settings.refresh_token else ""
    identity = (
        settings.issuer or settings.token_url,
        settings.client_id,
        "login" if settings.grant in NEEDS_LOGIN else settings.grant,
        settings.scope,
        settings.audience,
        settings.resource,
        settings.subject_token_file,
        seed and hashlib.sha256(seed.encode()).hexdigest(),
    )
    return store_for(settings, identity, outlives_process=settings.grant in (*NEEDS_LOGIN, "refresh_token"))


class OAuth2Client:
    """One client at one provider. It keeps no connection: processes may fork, and requests are minutes apart."""

    def __init__(self, settings: OAuth2Settings) -> None:
        self.settings = settings
        self._endpoints: tuple[float, Endpoints] | None = None
        self._clock_offset = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.issuer or self.settings.token_url!r})"

    def fetch(self, previous: Token | None = None) -> Token:
        """A new token by the grant of the settings.

        Args:
            previous: the token before, whose refresh token is used where the grant has one.

        Raises:
            Unavailable: the provider does not answer now.
            MlflowException: it refused, or somebody has to log in first.
        """
        with self.errors("get a token"), self.session() as (session, endpoints):
            offset = self._clock_offset
            try:
                response = self._ask(session, endpoints, previous)
            except OAuthError as exc:
                # A signed assertion was refused, and the answer showed that the clocks differ: sign anew, once.
                moved = abs(self._clock_offset - offset) > SKEW_SECONDS
                if exc.error != "invalid_client" or not moved or self.settings.client_auth_method != "private_key_jwt":
                    raise
                session.token_endpoint_auth_method = self._method(endpoints)
                response = self._ask(session, endpoints, previous)
            return token_from_response(response, previous)

    def revoke(self, token: Token) -> bool:
        """Revoke a token at the provider (RFC 7009); False where it has no endpoint for that.

        Raises:
            Unavailable, MlflowException: as `fetch`.
        """
        with self.errors("revoke the token"), self.session() as (session, endpoints):
            if not endpoints.revocation:
                return False
            hint = "refresh_token" if token.refresh_token else "access_token"
            response = session.revoke_token(
                endpoints.revocation,
                token=token.refresh_token or token.access_token,
                token_type_hint=hint,
                auth=session.client_auth(session.token_endpoint_auth_method),
                timeout=self.settings.timeout,
                allow_redirects=False,
            )
            if response.status_code != 200:
                raise mlflow_error(f"The provider answered HTTP {response.status_code} to the revocation.")
            return True

    def endpoints(self, session: requests.Session) -> Endpoints:
        """The provider's endpoints, discovered anew every hour; where that fails the last ones hold."""
        known = self._endpoints
        if known is not None and time.monotonic() - known[0] < REDISCOVER_SECONDS:
            return known[1]
        try:
            found = discover(self.settings, session)
        except (Unavailable, requests.RequestException):
            if known is None:
                raise
            found = known[1]
        self._endpoints = (time.monotonic(), found)
        return found

    @contextmanager
    def session(self) -> Iterator[tuple[Any, Endpoints]]:
        """A session of authlib for one conversation, and the provider's endpoints."""
        settings = self.settings
        session = OAuth2Session(settings.client_id, secret_for(settings), scope=settings.scope)
        with session:
            if settings.ca_bundle:
                if not os.path.exists(settings.ca_bundle):
                    raise mlflow_error(f"The file {settings.ca_bundle!r} of MLFLOW_AUTH_CA_BUNDLE does not exist.")
                session.verify = settings.ca_bundle
            if settings.client_auth_method == "tls_client_auth":
                session.mount("https://", TLSClientAdapter(settings))
            session.hooks["response"].append(self._read_clock)
            for kind in ("access_token_response", "refresh_token_response"):
                session.register_compliance_hook(kind, _check_status)
            endpoints = self.endpoints(_plain(session))
            session.token_endpoint_auth_method = self._method(endpoints)
            yield session, endpoints

    @contextmanager
    def errors(self, operation: str) -> Iterator[None]:
        """Turn whatever goes wrong with the provider into `Unavailable` or an MlflowException."""
        secrets = self.settings.secrets()
        try:
            with OAUTH_ERRORS.applied(operation, secrets):
                try:
                    yield
                except OAuthError as exc:
                    if exc.error in TEMPORARY:
                        raise Unavailable(f"{exc.error}: {redact_text(str(exc.description), secrets)}") from None
                    if OAUTH_ERRORS.row_for(exc) is None:
                        said = redact_text(f"{exc.error}: {exc.description}", secrets)
                        raise mlflow_error(f"The OAuth 2.0 provider refused: {said}.", "UNAUTHENTICATED") from None
                    raise
                except requests.exceptions.SSLError as exc:
                    if "CERTIFICATE_VERIFY_FAILED" in str(exc) or "ALERT" in str(exc).upper():
                        raise
                    raise Unavailable(redact_text(str(exc), secrets)) from None
        except requests.HTTPError as exc:
            status = exc.response.status_code if exc.response is not None else "?"
            raise mlflow_error(
                f"The token provider answered HTTP {status}. Check MLFLOW_AUTH_ISSUER and MLFLOW_AUTH_TOKEN_URL."
            ) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as exc:
            raise Unavailable(redact_text(f"{type(exc).__name__}: {exc}", secrets)) from None
        except ValueError:
            raise mlflow_error(
                "The token provider's answer is no JSON object. Check MLFLOW_AUTH_ISSUER and MLFLOW_AUTH_TOKEN_URL."
            ) from None

    def _method(self, endpoints: Endpoints) -> Any:
        return method_for(self.settings, endpoints.token, self._clock_offset)

    def _read_clock(self, response: requests.Response, **_: Any) -> None:
        """Learn from an answer's Date by how much the provider's clock differs from ours."""
        try:
            offset = parsedate_to_datetime(response.headers.get("Date", "")).timestamp() - time.time()
        except (TypeError, ValueError):
            return
        self._clock_offset = offset if abs(offset) > SKEW_SECONDS else 0.0

    def _ask(self, session: Any, endpoints: Endpoints, previous: Token | None) -> dict[str, Any]:
        settings = self.settings
        common = {
            "timeout": settings.timeout,
            "allow_redirects": False,
            **{n: v for n in ("audience", "resource") if (v := getattr(settings, n))},
        }
        if settings.grant == "client_credentials":
            answer = session.fetch_token(endpoints.token, grant_type="client_credentials", **common)
        elif settings.grant == "token_exchange":
            answer = session.fetch_token(
                endpoints.token,
                grant_type=TOKEN_EXCHANGE,
                subject_token=read_token_file(settings.subject_token_file, "MLFLOW_AUTH_SUBJECT_TOKEN_FILE"),
                subject_token_type=settings.subject_type,
                requested_token_type=ACCESS_TOKEN,
                **common,
            )
        elif settings.grant == "jwt_bearer":
            assertion = read_token_file(settings.subject_token_file, "MLFLOW_AUTH_SUBJECT_TOKEN_FILE")
            answer = session.fetch_token(endpoints.token, grant_type=JWT_BEARER, assertion=assertion, **common)
        else:
            refresh = self._refresh_token(previous)
            answer = session.refresh_token(endpoints.token, refresh_token=refresh, **common)
        return dict(answer)

    def _refresh_token(self, previous: Token | None) -> str:
        if previous is not None and previous.refresh_token:
            return previous.refresh_token
        if self.settings.refresh_token:
            return self.settings.refresh_token.get_secret_value()
        why = "The provider gave no refresh token with the last login, and its token has ended" if previous else (
            "Nobody is logged in")  # fmt: skip
        raise mlflow_error(f"{why}. Run `mlflow-auth login`.", "UNAUTHENTICATED")


def _check_status(response: requests.Response) -> requests.Response:
    if response.status_code in BUSY:
        raise Unavailable(f"The token endpoint answered HTTP {response.status_code}.")
    if response.is_redirect:
        raise requests.HTTPError("redirect", response=response)
    return response


def _plain(session: Any) -> requests.Session:
    """A session with the same TLS settings and hooks, without authlib's token handling."""
    plain = requests.Session()
    plain.verify, plain.adapters, plain.hooks = session.verify, session.adapters, session.hooks
    return plain
