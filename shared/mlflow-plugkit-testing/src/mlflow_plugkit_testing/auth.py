"""Conformance of request auth providers (entry points `mlflow.request_auth_provider`).

MLflow's client looks the provider up by the name in MLFLOW_TRACKING_AUTH and hands what `get_auth()`
returns to requests, once for each HTTP request (mlflow.utils.rest_utils.http_request).
"""

from __future__ import annotations

import io
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.providers import (
    ProviderConformance,
    in_threads,
    load_entry_point,
    median_seconds,
    must_not_raise,
    recorded_io,
    registered_provider,
)
from mlflow_plugkit_testing.recording import Answer, RecordedRequest, RecordingServer, redirect

GET_AUTH_SECONDS = 0.005
RESERVED_NAMES = frozenset({"kubernetes", "kubernetes-namespaced"})
REMEDY = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+|`[^`]+`|'[^']+'")
MLFLOW_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)  # fmt: skip
REFUSED = Answer(401, body=b'{"error_code": "UNAUTHENTICATED", "message": "The credentials were refused."}')


@dataclass(frozen=True)
class Credentials:
    """What the fixture `configured` of an auth suite returns.

    Attributes:
        secrets: every value that must not be shown: password, token, client secret, refresh token.
        header: the request header that carries the credentials.
        value: what that header must hold, or None where the test cannot know it.
    """

    secrets: tuple[str, ...] = field(repr=False)
    header: str = "Authorization"
    value: str | None = field(default=None, repr=False)

    def are_in(self, request: RecordedRequest) -> bool:
        """Whether the request carries exactly these credentials."""
        found = request.values(self.header)
        if self.value is not None:
            return found == [self.value]
        return len(found) == 1 and bool(found[0].strip()) and not any(v in found[0] for v in RIVAL_VALUES)


RIVAL_VALUES = ("cml2YWw", "rival")  # the start of base64("rival:...") and the plain word


class RecordedRequests:
    """The fixture of the suites that look at what a real MLflow client sends."""

    @pytest.fixture
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingServer]:
        """A recording server, with no other credentials around and without waiting between retries."""
        without_credentials(monkeypatch, tmp_path)
        with RecordingServer() as server:
            yield server


class RequestAuthProviderConformance(RecordedRequests, ProviderConformance):
    """The rules for a request auth provider.

    Override `provider_name` and the fixture `configured`; for a provider without an entry point also
    `provider_class`:

        class TestAuth(RequestAuthProviderConformance):
            provider_name = "demo"
            variables = ("DEMO_TOKEN",)

            @pytest.fixture
            def configured(self, monkeypatch):
                monkeypatch.setenv("DEMO_TOKEN", "s3cret-token")
                return Credentials(secrets=("s3cret-token",), value="Bearer s3cret-token")
    """

    entry_point_group: ClassVar[str] = "mlflow.request_auth_provider"
    provider_name: ClassVar[str] = ""
    """The value of MLFLOW_TRACKING_AUTH that selects the provider."""

    @property
    def provider_class(self) -> type[Any]:
        """The class under test. By default the entry point `entry_point_name`, or the one named `provider_name`."""
        cls: type[Any] = load_entry_point(self.entry_point_group, self.entry_point_name or self.provider_name)
        return cls

    @contextmanager
    def in_use(self, provider: Any | None = None) -> Iterator[Any]:
        """Register a new provider with MLflow and select it by its name."""
        from mlflow.tracking.request_auth.registry import _request_auth_provider_registry as registry

        self.reset()
        provider = provider or self.make_provider()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_AUTH", provider.get_name())
            with registered_provider(registry, self.provider_class, provider):
                yield provider

    def test_name_selects_the_provider(self, unconfigured: None) -> None:
        """`get_name()` is a stable word that fits into MLFLOW_TRACKING_AUTH."""
        name = self.make_provider().get_name()
        assert isinstance(name, str), f"get_name() returned {name!r}, which is no text"
        assert name, "get_name() is empty: no value of MLFLOW_TRACKING_AUTH can select the provider"
        assert not re.search(r"\s", name), f"get_name() is {name!r}: a name with blanks is easily mistyped"
        assert name == self.make_provider().get_name(), "get_name() changes from one instance to the next"
        if self.provider_name:
            assert name == self.provider_name, f"get_name() is {name!r}, the documented name is {self.provider_name!r}"

    def test_name_is_not_taken(self, unconfigured: None) -> None:
        """The first provider of a name wins (mlflow.tracking.request_auth.registry.fetch_auth), so the name is free."""
        from mlflow.tracking.request_auth.registry import _request_auth_provider_registry as registry

        others = {p.get_name() for p in registry if type(p) is not self.provider_class}
        name = self.make_provider().get_name()
        assert name not in others | RESERVED_NAMES, f"another provider is called {name!r} as well, and it comes first"

    def test_get_auth_is_an_auth_object(self, configured: Credentials) -> None:
        """`get_auth()` returns what requests accepts: a callable that takes the prepared request."""
        auth = self.make_provider().get_auth()
        assert callable(auth) or (isinstance(auth, tuple) and len(auth) == 2), (
            f"get_auth() returned a {type(auth).__name__}, which requests does not accept as auth"
        )

    def test_credentials_reach_the_server(self, server: RecordingServer, configured: Credentials) -> None:
        """MLFLOW_TRACKING_AUTH=name and MLflow's own client are all it takes."""
        with self.in_use(), must_not_raise("MLflow's client failed with the provider"):
            ask(server)
        assert server.requests, "no request reached the server"
        assert all(configured.are_in(r) for r in server.requests), (
            f"the credentials did not arrive in the header {configured.header!r}"
        )

    @pytest.mark.parametrize("rival", ["netrc", "token", "password", "header provider"])
    def test_credentials_win_over_others(
        self,
        server: RecordingServer,
        configured: Credentials,
        rival: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The selected provider beats ~/.netrc, MLflow's token and password variables, and header providers."""
        with rival_credentials(rival, configured.header, tmp_path, monkeypatch), self.in_use():
            ask(server)
        assert all(configured.are_in(r) for r in server.requests), f"the {rival} won over the selected auth provider"

    @pytest.mark.parametrize("form", ["json", "stream"])
    def test_body_is_intact(self, server: RecordingServer, configured: Credentials, form: str) -> None:
        """What MLflow sends arrives whole, also when the auth object answers a 401 by sending again."""
        sent = '{"name": "caf\u00e9 \u6f22"}'.encode() * 4000
        server.answer(REFUSED)
        with self.in_use():
            error_of(lambda: send(server, data=io.BytesIO(sent) if form == "stream" else sent))
        bodies = [r.body for r in server.requests]
        assert bodies, "no request reached the server"
        assert all(b == sent for b in bodies), (
            f"the provider changed the request's body: of {len(sent)} bytes arrived {[len(b) for b in bodies]}"
        )

    def test_refusal_ends(self, server: RecordingServer, configured: Credentials) -> None:
        """Refused credentials end in an error after at most four requests: no endless renewal, no lock-out."""
        server.answer(*[REFUSED] * 12)
        with self.in_use():
            error = error_of(lambda: ask(server))
        assert error is not None, "the server refused twelve times, and no error was raised"
        assert len(server.requests) <= 4, f"one call became {len(server.requests)} requests after a refusal (401)"

    def test_credentials_stay_with_their_host(self, server: RecordingServer, configured: Credentials) -> None:
        """A redirect to another host takes no credentials along, nor does that host's 401 call for them."""
        with RecordingServer() as elsewhere, self.in_use():
            elsewhere.always(REFUSED)
            server.always(redirect(f"{elsewhere.other_host_uri}/taken"))
            error_of(lambda: ask(server))
            taken = elsewhere.requests
        assert server.requests, "no request reached the server"
        leaked = [r for r in taken if r.values(configured.header) or any(r.shows(s) for s in configured.secrets)]
        assert not leaked, f"the credentials followed a redirect to another host (header {configured.header!r})"

    def test_secrets_are_not_in_repr(self, server: RecordingServer, configured: Credentials) -> None:
        """Neither provider nor auth object shows a secret when printed, before and after use."""
        with self.in_use() as provider:
            ask(server)
            auth = provider.get_auth()
            shown = [f"{thing!r} {thing!s}" for thing in (provider, auth)]
        assert not showing(configured, " ".join(shown)), "printing the provider or its auth object shows a secret"

    def test_secrets_are_not_logged(
        self,
        server: RecordingServer,
        configured: Credentials,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """No secret in log records at DEBUG, in warnings or on the terminal, whether accepted or refused."""
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, logger=self.provider_class.__module__.partition(".")[0])
        server.answer(Answer(), *[REFUSED] * 4)
        with warnings.catch_warnings(record=True) as caught, self.in_use():
            warnings.simplefilter("always")
            ask(server)
            error_of(lambda: ask(server))
        text = "\n".join([caplog.text, *capfd.readouterr(), *(str(w.message) for w in caught)])
        assert not showing(configured, text), "a secret stands in the log, a warning or the terminal"

    def test_secrets_are_not_in_errors(self, server: RecordingServer, configured: Credentials) -> None:
        """The error of a refused request, with its causes and notes, shows no secret."""
        server.answer(*[REFUSED] * 12)
        with self.in_use():
            error = error_of(lambda: ask(server))
        assert error is not None, "the server refused, and no error was raised"
        text = "".join(traceback.format_exception(error)) + repr(error)
        assert not showing(configured, text), "the error after refused credentials shows a secret"

    def test_missing_configuration_is_explained(self, server: RecordingServer, unconfigured: None) -> None:
        """Without credentials the user gets an MlflowException that says what to set."""
        if not self.needs_configuration:
            pytest.skip("the provider needs no configuration")
        from mlflow.exceptions import MlflowException

        with self.in_use():
            error = error_of(lambda: ask(server))
        assert isinstance(error, MlflowException), f"without credentials: {error!r}; MLflow expects an MlflowException"
        assert REMEDY.search(str(error)), f"the error names no variable and no command that would help: {error}"

    def test_nothing_is_sent_without_credentials(self, server: RecordingServer, unconfigured: None) -> None:
        """The user asked for authentication: no request goes out without it."""
        if not self.needs_configuration:
            pytest.skip("the provider needs no configuration")
        with self.in_use():
            error_of(lambda: ask(server))
        assert not server.requests, "without credentials the request was sent unauthenticated"

    def test_get_auth_is_cheap(self, configured: Credentials) -> None:
        """MLflow calls `get_auth()` for each request: once warm, its median is under 5 ms."""
        provider = self.make_provider()
        spent = median_seconds(provider.get_auth)
        assert spent < GET_AUTH_SECONDS, f"get_auth() takes {spent * 1000:.1f} ms for each HTTP request of MLflow"

    def test_get_auth_keeps_its_credentials(self, server: RecordingServer, configured: Credentials) -> None:
        """Once warm, neither `get_auth()` nor its object connects anywhere or starts a process."""
        provider = self.make_provider()
        prepare_with(provider.get_auth(), server.uri)
        with recorded_io(files=False) as done:
            prepare_with(provider.get_auth(), server.uri)
        assert not done, f"credentials are fetched anew for each HTTP request of MLflow: {done}"

    def test_threads_share_the_provider(self, server: RecordingServer, configured: Credentials) -> None:
        """Sixteen threads that start at once all send valid credentials."""
        with self.in_use(), must_not_raise("a thread failed while another one got its credentials"):
            in_threads(lambda: ask(server))
        bad = [r for r in server.requests if not configured.are_in(r)]
        assert not bad, f"{len(bad)} of {len(server.requests)} parallel requests went out without valid credentials"


def ask(server: RecordingServer) -> None:
    """One call of MLflow's own client."""
    import mlflow

    mlflow.MlflowClient(tracking_uri=server.uri).search_experiments()


def send(server: RecordingServer, data: Any) -> Any:
    """One PUT through the function that all of MLflow's REST clients use."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    return http_request(get_default_host_creds(server.uri), "/api/2.0/mlflow-artifacts/artifacts/a", "PUT", data=data)


def prepare_with(auth: Any, uri: str) -> None:
    """Let requests apply the auth object to a request that is not sent."""
    import requests

    requests.Request("GET", uri, auth=auth).prepare()


def error_of(call: Callable[[], object]) -> Exception | None:
    """The exception that the call raises, or None."""
    try:
        call()
    except Exception as exc:  # noqa: BLE001 # the rules judge whatever comes
        return exc
    return None


def showing(credentials: Credentials, text: str) -> list[int]:
    """The positions in `secrets` of those that the text shows. Not the secrets: this stands in a failure's output."""
    return [i for i, secret in enumerate(credentials.secrets) if secret in text]


def without_credentials(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take MLflow's own credentials and ~/.netrc out of the environment, and waiting between retries."""
    for name in MLFLOW_CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


@contextmanager
def rival_credentials(rival: str, header: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other credentials that MLflow and requests would use on their own."""
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry

    if rival == "netrc":
        netrc = folder / "netrc"
        netrc.write_text("machine 127.0.0.1 login rival password rival\n", encoding="utf-8")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
    elif rival == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "rival")
    elif rival == "password":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "rival")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "rival")
    else:
        provider = _RivalHeaders(header)
        with registered_provider(registry, _RivalHeaders, provider):
            yield
        return
    yield


class _RivalHeaders:
    """A header provider that sets the header of the credentials."""

    def __init__(self, header: str) -> None:
        self.header = header

    def in_context(self) -> bool:
        return True

    def request_headers(self) -> dict[str, str]:
        return {self.header: "Bearer rival"}
