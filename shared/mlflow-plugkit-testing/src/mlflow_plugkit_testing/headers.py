"""Conformance of request header providers (entry points `mlflow.request_header_provider`).

MLflow asks every provider for its headers at each HTTP request, joins values of equal names with a
blank, and swallows what a provider raises (mlflow.tracking.request_header.registry.resolve_request_headers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.auth import RecordedRequests, ask
from mlflow_plugkit_testing.providers import (
    ContextualProviderConformance,
    hostile_environments,
    in_threads,
    median_seconds,
    must_not_raise,
    recorded_io,
    registered_provider,
)
from mlflow_plugkit_testing.recording import RecordingServer

CALL_SECONDS = 0.005
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CREDENTIAL_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
CONNECTION_HEADERS = frozenset({
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect",
    "host", "content-length", "content-encoding",
})  # fmt: skip
"""Hop-by-hop fields (RFC 9110, 7.6.1) and those that describe the body which requests sends."""
MLFLOW_HEADERS = frozenset({
    "content-type", "accept", "accept-encoding", "x-mlflow-workspace", "x-mlflow-client-version",
    "x-databricks-org-id", "x-databricks-traffic-id",
})  # fmt: skip
"""Set by MLflow or requests; a provider's value would be lost, joined to theirs, or a TypeError."""


class RequestHeaderProviderConformance(RecordedRequests, ContextualProviderConformance):
    """The rules for a request header provider.

    Override `entry_point_name` (or `provider_class`), `variables`, and the fixture `configured`, which sets
    the provider's configuration and returns the headers that must arrive, or None where they are not known:

        class TestHeaders(RequestHeaderProviderConformance):
            entry_point_name = "demo"
            variables = ("DEMO_TEAM",)

            @pytest.fixture
            def configured(self, monkeypatch):
                monkeypatch.setenv("DEMO_TEAM", "vision")
                return {"X-Team": "vision"}
    """

    entry_point_group: ClassVar[str] = "mlflow.request_header_provider"
    variables: ClassVar[tuple[str, ...]] = ()

    @property
    def may_set_credentials(self) -> bool:
        """Whether the provider sends Authorization or Cookie on purpose. An auth provider is the better place."""
        return False

    @contextmanager
    def in_use(self) -> Iterator[Any]:
        """Register a new provider with MLflow, as its registry would."""
        from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry

        self.reset()
        provider = self.make_provider()
        with registered_provider(registry, self.provider_class, provider):
            yield provider

    def test_headers_are_text(self, configured: Mapping[str, str] | None) -> None:
        """`request_headers()` returns a dictionary of text; requests refuses None and numbers."""
        headers = self.make_provider().request_headers()
        assert isinstance(headers, dict), f"request_headers() returned a {type(headers).__name__}, not a dict"
        wrong = [name for name, value in headers.items() if not isinstance(name, str) or not isinstance(value, str)]
        assert not wrong, f"headers whose name or value is no text: {wrong}; leave a header out instead of None"

    def test_headers_are_legal(
        self, configured: Mapping[str, str] | None, monkeypatch: pytest.MonkeyPatch, server: RecordingServer
    ) -> None:
        """Names are RFC 9110 tokens; values are latin-1 without control characters, whatever the environment says."""
        problems = illegal(self.make_provider().request_headers())
        for where in hostile_environments(self.variables, monkeypatch):
            self.reset()
            provider = self.make_provider()
            if provider.in_context():
                problems += [f"{p} {where}" for p in illegal(provider.request_headers())]
        assert not problems, f"illegal headers, which requests refuses or the server splits: {problems[:5]}"

    def test_no_reserved_headers(self, configured: Mapping[str, str] | None) -> None:
        """Credentials, hop-by-hop fields and the body's description are not a header provider's business."""
        reserved = CONNECTION_HEADERS | (frozenset() if self.may_set_credentials else CREDENTIAL_HEADERS)
        found = sorted(h for h in self.make_provider().request_headers() if h.lower() in reserved)
        assert not found, f"reserved headers {found}: they break the connection, or a ~/.netrc entry overrides them"

    def test_mlflows_headers_survive(self, server: RecordingServer, configured: Mapping[str, str] | None) -> None:
        """MLflow's own headers arrive as without the provider; only User-Agent may be added to."""
        ask(server)
        plain = server.requests[-1]
        with self.in_use() as provider:
            names = provider.request_headers()
            ask(server)
        taken = sorted(h for h in names if h.lower() in MLFLOW_HEADERS)
        assert not taken, f"headers that MLflow itself sets: {taken}"
        agent, ours = plain.header("User-Agent") or "", server.requests[-1].header("User-Agent") or ""
        assert ours.startswith(agent), f"MLflow's User-Agent {agent!r} became {ours!r}: spell the name as MLflow does"

    def test_headers_reach_the_server(self, server: RecordingServer, configured: Mapping[str, str] | None) -> None:
        """What `request_headers()` returns arrives with the requests of MLflow's own client."""
        with self.in_use() as provider, must_not_raise("MLflow's client failed with the provider"):
            wanted = configured if configured is not None else provider.request_headers()
            ask(server)
        request = server.requests[-1]
        missing = sorted(name for name, value in wanted.items() if value not in (request.header(name) or ""))
        assert wanted, "there is no header to look for: return the expected headers from the fixture 'configured'"
        assert not missing, f"headers that did not reach the server: {missing}"

    def test_never_raises(
        self, configured: Mapping[str, str] | None, monkeypatch: pytest.MonkeyPatch, server: RecordingServer
    ) -> None:
        """MLflow swallows what a provider raises and sends the request without its headers; so it must not raise."""
        for where in hostile_environments(self.variables, monkeypatch):
            self.reset()
            with must_not_raise(f"in_context() or request_headers() raised {where}"):
                provider = self.make_provider()
                if provider.in_context():
                    provider.request_headers()

    def test_calls_are_cheap(self, configured: Mapping[str, str] | None) -> None:
        """Both methods run for each HTTP request: once warm, the median of the pair is under 5 ms."""
        provider = self.make_provider()
        spent = median_seconds(lambda: (provider.in_context(), provider.request_headers()))
        assert spent < CALL_SECONDS, f"the provider adds {spent * 1000:.1f} ms to each HTTP request of MLflow"

    def test_calls_connect_nowhere(self, configured: Mapping[str, str] | None) -> None:
        """Once warm, the provider neither connects anywhere nor starts a process."""
        provider = self.make_provider()
        provider.request_headers()
        with recorded_io(files=False) as done:
            provider.in_context()
            provider.request_headers()
        assert not done, f"headers are fetched anew for each HTTP request of MLflow: {done}"

    def test_threads_share_the_provider(self, server: RecordingServer, configured: Mapping[str, str] | None) -> None:
        """Sixteen threads that start at once get the same header names and no exception."""
        provider = self.make_provider()
        with must_not_raise("a thread failed while another one used the provider"):
            names = in_threads(lambda: sorted(provider.request_headers()) if provider.in_context() else None)
        assert all(n == names[0] for n in names), "parallel threads get different headers from one provider"
        assert names[0], "in a thread the provider returned no headers"


def illegal(headers: Mapping[str, str]) -> list[str]:
    """What is wrong with the names and values, by RFC 9110, 5.1 and 5.5, and what http.client can send."""
    problems = []
    for name, value in headers.items():
        if not TOKEN.fullmatch(name):
            problems.append(f"name {name!a}")
        if any(ord(c) > 255 or ord(c) == 127 or (ord(c) < 32 and c != "\t") for c in value):
            problems.append(f"value of {name!a}: {value[:40]!a}")
        elif value != value.strip():
            problems.append(f"blanks around the value of {name!a}")
    return problems
