"""The gate of the server app, without a server."""

from __future__ import annotations

import json

import pytest

from mlflow_reference_plugin.app import Gate, WsgiGate
from mlflow_reference_plugin.settings import ClientSettings

TOKEN = "reference-token-8Zq"


@pytest.fixture
def gate() -> Gate:
    return Gate(ClientSettings.from_env({"MLFLOW_REFERENCE_TOKEN": TOKEN}))


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}])
def test_a_request_without_the_token_is_refused(gate: Gate, given: dict[str, str]) -> None:
    answer = gate.answer("POST", "/api/2.0/mlflow/runs/create", given)
    assert answer is not None
    assert answer[0] == 401
    assert json.loads(answer[1])["error_code"] == "UNAUTHENTICATED"


def test_a_request_with_the_token_passes(gate: Gate) -> None:
    assert gate.answer("GET", "/", {"authorization": f"Bearer {TOKEN}"}) is None


@pytest.mark.parametrize("path", ["/health", "/version"])
def test_health_needs_no_token(gate: Gate, path: str) -> None:
    assert gate.answer("GET", path, {}) is None


def test_what_was_received_shows_no_credential(gate: Gate) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "cookie": f"s={TOKEN}", "x-reference-team": "vision"}
    answer = gate.answer("GET", "/reference/received", headers)
    assert answer is not None
    assert TOKEN not in answer[1].decode()
    assert json.loads(answer[1])[0]["headers"]["x-reference-team"] == "vision"


def test_under_wsgi_each_response_is_marked(gate: Gate) -> None:
    def app(environ: object, start_response: object) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])  # type: ignore[operator]
        return [b"fine"]

    seen: list[tuple[str, list[tuple[str, str]]]] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    body = WsgiGate(app, gate)(environ, lambda status, headers: seen.append((status, headers)))
    refused = WsgiGate(app, gate)({**environ, "HTTP_AUTHORIZATION": "x"}, lambda s, h: seen.append((s, h)))
    assert (body, json.loads(refused[0])["error_code"]) == ([b"fine"], "UNAUTHENTICATED")
    assert [status for status, _ in seen] == ["200 OK", "401 Unauthorized"]
    assert all(("x-reference-app", "1") in headers for _, headers in seen)
