"""Logging a person in: the device flow (RFC 8628), and the authorization code with PKCE (RFC 6749, 7636, 8252)."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError

from mlflow_plugkit.errors import mlflow_error
from mlflow_request_auth.oauth2 import OAuth2Client
from mlflow_request_auth.source import Unavailable
from mlflow_request_auth.tokens import Token, token_from_response

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
LOGIN_SECONDS = 300.0
_PAGE = "<!doctype html><meta charset=utf-8><title>MLflow login</title><p>{} You can close this page."


def device_login(
    client: OAuth2Client, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Token:
    """Log in on another device: shows an address and a code, and waits until they were used.

    Args:
        client: the client.
        say: shows one line to the user.
        sleep: waits the seconds between two polls that the provider asks for.

    Raises:
        Unavailable: the provider does not answer.
        MlflowException: the login was refused or took too long, or the provider offers no device flow.
    """
    with client.errors("log in"), client.session() as (session, endpoints):
        if not endpoints.device:
            raise mlflow_error(
                "The provider names no device authorization endpoint. Use MLFLOW_AUTH_GRANT=authorization_code, or set "
                "MLFLOW_AUTH_DEVICE_URL."
            )
        auth = session.client_auth(session.token_endpoint_auth_method)
        asked = session.post(
            endpoints.device, data=_asked_for(client), auth=auth, timeout=client.settings.timeout, allow_redirects=False
        )
        start = session.parse_response_token(asked)
        if not all(start.get(name) for name in ("device_code", "user_code", "verification_uri")):
            raise mlflow_error("The provider's answer to the device login is incomplete (RFC 8628, 3.2).")
        uri = start.get("verification_uri_complete") or start["verification_uri"]
        say(f"Open {uri} and confirm the code {start['user_code']}")
        return _poll(client, session, endpoints.token, start, sleep)


def _poll(client: OAuth2Client, session: Any, url: str, start: dict[str, Any], sleep: Callable[[float], None]) -> Token:
    pause = float(start.get("interval") or 5)
    end = time.monotonic() + min(float(start.get("expires_in") or LOGIN_SECONDS), 3600.0)
    while time.monotonic() < end:
        sleep(pause)
        try:
            response = session.fetch_token(
                url, grant_type=DEVICE_GRANT, device_code=start["device_code"], timeout=client.settings.timeout,
                allow_redirects=False,
            )  # fmt: skip
        except OAuthError as exc:
            if exc.error == "slow_down":
                pause += 5
            elif exc.error != "authorization_pending":
                raise
            continue
        except (Unavailable, requests.ConnectionError, requests.Timeout):
            pause = min(pause * 2, 60.0)  # RFC 8628, 3.5
            continue
        return token_from_response(response)
    raise OAuthError("expired_token", "nobody confirmed the code in time")


def browser_login(client: OAuth2Client, open_page: Callable[[str], None], wait: float = LOGIN_SECONDS) -> Token:
    """Log in with a browser on this machine, which hands the code to a loopback port.

    Args:
        client: the client.
        open_page: shows the provider's page to the user.
        wait: seconds until the login must be done.

    Raises:
        Unavailable: the provider does not answer.
        MlflowException: the login was refused, forged or took too long.
    """
    settings = client.settings
    with client.errors("log in"), client.session() as (session, endpoints), _Loopback(settings.redirect_port) as door:
        if not endpoints.authorization:
            raise mlflow_error(
                "The provider names no authorization endpoint. Use MLFLOW_AUTH_GRANT=device_code, or set "
                "MLFLOW_AUTH_AUTHORIZATION_URL."
            )
        verifier, state = generate_token(64), generate_token(32)
        session.redirect_uri, session.code_challenge_method = door.uri, "S256"
        extra = {k: v for k, v in _asked_for(client).items() if k != "scope"}
        if "offline_access" in (settings.scope or "").split():
            extra["prompt"] = "consent"  # OpenID Connect Core, 11: no refresh token without it
        page, _ = session.create_authorization_url(
            endpoints.authorization, state=state, code_verifier=verifier, **extra
        )
        door.state = state
        open_page(page)
        answer = door.answer(wait)
        _check_answer(answer, endpoints.issuer, required=endpoints.sends_issuer)
        response = session.fetch_token(
            endpoints.token, grant_type="authorization_code", code=answer["code"], code_verifier=verifier,
            redirect_uri=door.uri, timeout=settings.timeout, allow_redirects=False,
            **{k: v for k, v in extra.items() if k == "resource"},
        )  # fmt: skip
        return token_from_response(response)


def _asked_for(client: OAuth2Client) -> dict[str, str]:
    return {n: v for n in ("scope", "audience", "resource") if (v := getattr(client.settings, n))}


def _check_answer(answer: dict[str, str], issuer: str | None, *, required: bool) -> None:
    said = answer.get("iss")
    if issuer and ((said and said != issuer) or (required and not said)):  # RFC 9207: another provider's answer
        raise OAuthError("mismatching_state", "the answer came from another provider")
    if "error" in answer:
        raise OAuthError(answer["error"], answer.get("error_description", ""))
    if not answer.get("code"):
        raise OAuthError("invalid_request", "the answer holds no code")


class _Loopback:
    """A web server on 127.0.0.1 for one answer: the first with our `state`; all else is turned away."""

    def __init__(self, port: int) -> None:
        self.state = ""
        self._found: dict[str, str] = {}
        try:
            self._server = HTTPServer(("127.0.0.1", port), self._handler())
        except OSError as exc:
            raise mlflow_error(
                f"The port {port} of MLFLOW_AUTH_REDIRECT_PORT cannot be used: {exc.strerror}."
            ) from None
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}/callback"

    def __enter__(self) -> _Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def answer(self, wait: float) -> dict[str, str]:
        """The answer's parameters."""
        end = time.monotonic() + wait
        while not self._found and (left := end - time.monotonic()) > 0:
            self._server.timeout = left
            self._server.handle_request()
        if not self._found:
            raise OAuthError("expired_token", f"the browser did not come back within {wait:g} seconds")
        return self._found

    def _take(self, path: str) -> bool:
        parts = urlsplit(path)
        found = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/callback" or not hmac.compare_digest(found.get("state", "").encode(), self.state.encode()):
            return False
        self._found = found
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # a connection that says nothing must not keep the browser out

            def do_GET(self) -> None:  # the name that http.server calls
                taken = door._take(self.path)
                text = "The login is being completed." if taken else "This is not the answer to the login."
                body = _PAGE.format(text).encode()
                self.send_response(200 if taken else 400)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing: the path holds the code."""

        return Handler
