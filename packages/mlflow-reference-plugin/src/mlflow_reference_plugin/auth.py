"""Request auth: a bearer token (RFC 6750) from the environment or a file."""

from __future__ import annotations

from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests import PreparedRequest
from requests.auth import AuthBase

from mlflow_plugkit.errors import mlflow_error
from mlflow_reference_plugin.settings import ClientSettings


class BearerAuth(AuthBase):
    """Sets the Authorization header; the token is in no repr."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class ReferenceRequestAuthProvider(RequestAuthProvider):
    """Chosen by `MLFLOW_TRACKING_AUTH=reference`; the token is read anew for each request, so it may rotate."""

    def get_name(self) -> str:
        return "reference"

    def get_auth(self) -> BearerAuth:
        token = ClientSettings.from_env().token
        if token is None:
            raise mlflow_error(
                "MLFLOW_TRACKING_AUTH is 'reference', but there is no token. Set MLFLOW_REFERENCE_TOKEN, or "
                "MLFLOW_REFERENCE_TOKEN_FILE to the path of a file that holds it.",
                "UNAUTHENTICATED",
            )
        return BearerAuth(token.get_secret_value())
