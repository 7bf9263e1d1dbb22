"""The object that MLflow hands to requests: credentials for the right server, and one renewal after a 401.

requests calls it while it prepares a request (requests.auth.AuthBase), after the body and before
anything is sent. It wins over ~/.netrc and over an Authorization header that is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urljoin

from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

from mlflow_request_auth.hosts import Origin, keeps_credentials, request_origin


class Credential(Protocol):
    """What a provider makes of its settings: the value of one request header."""

    @property
    def header(self) -> str:
        """The header's name."""

    def value(self, origin: Origin, *, resendable: bool) -> str:
        """The header's value for a request to `origin`; `resendable` is False for a body that can be sent once."""

    def replacement(self, origin: Origin, refused: str) -> str | None:
        """Another value after `refused` was answered by 401, or None where a new one would not help."""

    def accepted(self) -> None:
        """The server answered something other than 401."""


class HostBoundAuth(AuthBase):
    """Adds a credential's header to requests that go where it may go.

    Args:
        choose: gives the credential for an origin, None for one that needs none, and raises
            MlflowException for one that must not have any.
    """

    def __init__(self, choose: Callable[[Origin | None], Credential | None]) -> None:
        self._choose = choose

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        origin = request_origin(request.url or "")
        credential = self._choose(origin)
        if credential is None or origin is None:
            return request
        value = credential.value(origin, resendable=is_resendable(request))
        request.headers[credential.header] = value
        request.register_hook("response", _Watch(credential, origin, value))  # type: ignore[no-untyped-call] # untyped in requests
        return request


class _Watch:
    """Follows one request of MLflow through redirects and refusals. requests keeps it with the request."""

    def __init__(self, credential: Credential, origin: Origin, sent: str) -> None:
        self._credential = credential
        self._origin = origin
        self._sent = sent
        self._finished = False
        self._renewed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __call__(self, response: Response, **kwargs: Any) -> Response:
        if self._finished or request_origin(response.url) != self._origin:
            self._finished = True
            return response
        if response.status_code == 401:
            response = self._resent(response, kwargs)
        elif not response.is_redirect:
            self._credential.accepted()
        if response.is_redirect:
            self._follow(response)
        return response

    def _follow(self, response: Response) -> None:
        """Take the header out of a request that a redirect sends elsewhere: requests does so for Authorization only."""
        after = request_origin(urljoin(response.url, response.headers["location"]))
        if not keeps_credentials(self._origin, after):
            self._finished = True
            response.request.headers.pop(self._credential.header, None)
        elif after is not None:
            self._origin = after

    def _resent(self, response: Response, kwargs: dict[str, Any]) -> Response:
        before = response.request
        if self._renewed or not is_resendable(before):
            return response
        value = self._credential.replacement(self._origin, self._sent)
        if value is None or value == self._sent or not _rewound(before):
            return response
        self._renewed = True
        response.close()  # unread: a server that drips its refusal would hold the training up
        before.headers[self._credential.header] = value
        again = before.copy()
        jar: Any = again._cookies  # type: ignore[attr-defined] # as requests.auth.HTTPDigestAuth does
        extract_cookies_to_jar(jar, before, response.raw)  # type: ignore[no-untyped-call] # untyped in requests
        again.prepare_cookies(jar)
        answer: Response = response.connection.send(again, **kwargs)  # type: ignore[attr-defined] # set by requests' adapter
        answer.history.append(response)
        answer.request = before
        if answer.status_code != 401:
            self._credential.accepted()
        return answer


def is_resendable(request: PreparedRequest) -> bool:
    """Whether the body can be sent twice: none, bytes, or a stream that can be rewound to where it began."""
    body = request.body
    if body is None or isinstance(body, (bytes, str)):
        return True
    seekable = getattr(body, "seekable", None)
    if not isinstance(getattr(request, "_body_position", None), int) or not hasattr(body, "seek"):
        return False
    return bool(seekable()) if callable(seekable) else True


def _rewound(request: PreparedRequest) -> bool:
    if request.body is None or isinstance(request.body, (bytes, str)):
        return True
    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True
