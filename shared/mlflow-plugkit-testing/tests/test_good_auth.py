"""A correct request auth provider passes every rule, with and without renewal after a 401."""

from __future__ import annotations

import os
import threading

import pytest
import requests

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_testing.auth import Credentials, RequestAuthProviderConformance

SECRET = "good-s3cret-token"


class TokenAuth(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class TokenProvider:
    def get_name(self):
        return "good-token"

    def get_auth(self):
        token = os.environ.get("GOOD_TOKEN")
        if not token:
            raise mlflow_error("There is no token. Set GOOD_TOKEN.", "UNAUTHENTICATED")
        return TokenAuth(token)


class RenewingAuth(requests.auth.AuthBase):
    """Sends a request once more after a 401, to the same host only, with its body from the start."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request):
        request.headers["X-Good-Key"] = self._token
        host = requests.utils.urlparse(request.url).netloc
        position = request.body.tell() if hasattr(request.body, "tell") else None
        tried = []

        def renew(response, **kwargs):
            same_host = requests.utils.urlparse(response.request.url).netloc == host
            if response.is_redirect:
                target = requests.utils.urlparse(response.headers["location"])
                if target.netloc not in ("", host):
                    raise requests.exceptions.InvalidURL("the redirect leaves the host")
            if response.status_code != 401 or not same_host or tried:
                return response
            tried.append(True)
            response.content  # noqa: B018 # frees the connection
            again = response.request.copy()
            if position is not None:
                again.body.seek(position)
            return response.connection.send(again, **kwargs)

        request.register_hook("response", renew)
        return request


class RenewingProvider(TokenProvider):
    _lock = threading.Lock()

    def get_name(self):
        return "good-renewing"

    def get_auth(self):
        with self._lock:
            super().get_auth()
            return RenewingAuth(os.environ["GOOD_TOKEN"])


class TestTokenProvider(RequestAuthProviderConformance):
    provider_name = "good-token"
    provider_class = TokenProvider
    variables = ("GOOD_TOKEN",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_TOKEN", SECRET)
        return Credentials(secrets=(SECRET,), value=f"Bearer {SECRET}")


class TestRenewingProvider(TestTokenProvider):
    provider_name = "good-renewing"
    provider_class = RenewingProvider

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_TOKEN", SECRET)
        return Credentials(secrets=(SECRET,), header="X-Good-Key")
