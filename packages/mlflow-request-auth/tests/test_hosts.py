"""Credentials go to the tracking server alone, whatever that server answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.recording import Answer, RecordingServer, redirect
from mlflow_request_auth.hosts import Origin, is_listed, keeps_credentials, matches, origin_of

KEY = "an-api-key-5e8f"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.COM/a/b", Origin("https", "example.com", 443)),
        ("http://example.com.:8080", Origin("http", "example.com", 8080)),
        ("http://[::1]:5000/x", Origin("http", "::1", 5000)),
        ("https://user:password@example.com", Origin("https", "example.com", 443)),
        ("sqlite:///mlflow.db", None),
        ("databricks", None),
        ("", None),
        ("http://example.com:notaport", None),
        ("http://[broken", None),
        ("http://evil.example\\@example.com", None),
        ("http://evil.example\t.example.com", None),
        ("http://example.com@evil.example", Origin("http", "evil.example", 80)),
        ("http://evil.example#@example.com", Origin("http", "evil.example", 80)),
    ],
)
def test_origins(url: str, origin: Origin | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("host", "private"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("a.localhost", True),
     ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("10.0.0.1", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_plain_http_is_private_on_loopback_only(host: str, private: bool) -> None:
    assert Origin("http", host, 80).is_private is private
    assert Origin("https", host, 443).is_private


@pytest.mark.parametrize(
    ("entry", "found"),
    [("mlflow.example.com", True), ("MLFLOW.example.com:5000", True), ("mlflow.example.com:443", False),
     ("example.com", False), ("evilmlflow.example.com", False), ("https://mlflow.example.com:5000", True),
     ("http://mlflow.example.com:5000", False), ("", False), ("*", False)],
)  # fmt: skip
def test_the_allow_list_has_no_wildcards(entry: str, found: bool) -> None:
    assert matches(Origin("https", "mlflow.example.com", 5000), entry) is found
    assert is_listed(Origin("https", "mlflow.example.com", 5000), ["other", entry]) is found


def test_a_step_up_to_tls_keeps_credentials_and_nothing_else_does() -> None:
    plain = Origin("http", "a", 80)
    assert keeps_credentials(plain, Origin("https", "a", 443))
    for after in (Origin("https", "a", 8443), Origin("http", "a", 81), Origin("https", "b", 443), None):
        assert not keeps_credentials(plain, after)
    assert not keeps_credentials(Origin("https", "a", 443), plain)


@pytest.fixture
def keyed(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> RecordingServer:
    """The tracking server, with an API key in a header that requests does not protect by itself."""
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "api-key")
    monkeypatch.setenv("MLFLOW_AUTH_API_KEY", KEY)
    return server


@pytest.fixture
def elsewhere() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


def ask() -> None:
    mlflow.MlflowClient().search_experiments()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["another port", "another name"])
@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_a_redirect_elsewhere_takes_no_key_along(
    keyed: RecordingServer, elsewhere: RecordingServer, status: int, place: str, header: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_AUTH_API_KEY_HEADER", header)
    target = elsewhere.uri if place == "another port" else elsewhere.other_host_uri
    keyed.always(redirect(f"{target}/api", status))
    ask()
    assert keyed.requests[0].values(header) == [KEY]
    assert elsewhere.requests
    assert not any(request.shows(KEY) for request in elsewhere.requests)


@pytest.mark.parametrize(
    "form",
    ["http://{away}\\@{home}/x", "http://{home}\\@{away}/x", "http://{home}@{away}/x", "http://{away}?@{home}/x",
     "http://{away}#@{home}/x", "//{away}/x", "http:/\\{away}/x", "http://{home}%2f@{away}/x", "HTTP://{away}"],
)  # fmt: skip
def test_a_redirect_that_parsers_read_differently_takes_no_key_along(
    keyed: RecordingServer, elsewhere: RecordingServer, form: str
) -> None:
    location = form.format(away=f"127.0.0.1:{elsewhere.port}", home=f"127.0.0.1:{keyed.port}")
    keyed.answer(redirect(location))
    with suppress(MlflowException):  # requests may refuse the URL
        ask()
    assert keyed.requests
    assert not any(request.shows(KEY) for request in elsewhere.requests)


def test_a_redirect_on_the_same_server_keeps_the_key(keyed: RecordingServer) -> None:
    keyed.answer(redirect("/api/2.0/mlflow/elsewhere"))
    ask()
    assert [r.values("X-API-Key") for r in keyed.requests] == [[KEY], [KEY]]


def test_a_way_back_by_another_host_brings_no_key(keyed: RecordingServer, elsewhere: RecordingServer) -> None:
    """Another host must not choose what is done in our name."""
    keyed.answer(redirect(f"{elsewhere.uri}/away"), Answer(401))
    elsewhere.always(redirect(f"{keyed.uri}/api/2.0/mlflow/runs/delete"))
    with pytest.raises(MlflowException):
        ask()
    assert [r.values("X-API-Key") for r in keyed.requests] == [[KEY], []]


@pytest.mark.parametrize("scheme", ["http", "mlflow-artifacts"])
def test_an_artifact_location_elsewhere_gets_nothing(
    keyed: RecordingServer, elsewhere: RecordingServer, tmp_path: Path, scheme: str
) -> None:
    """A tracking server can name any host as the place of artifacts."""
    location = f"{scheme}://127.0.0.1:{elsewhere.port}/api/2.0/mlflow-artifacts/artifacts/a.txt"
    with pytest.raises(MlflowException, match="MLFLOW_AUTH_ALLOWED_HOSTS"):
        mlflow.artifacts.download_artifacts(location, dst_path=str(tmp_path))
    assert not any(request.shows(KEY) for request in elsewhere.requests)


def test_the_registry_and_listed_hosts_are_served(
    keyed: RecordingServer, elsewhere: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient(tracking_uri=elsewhere.uri)
    with pytest.raises(MlflowException, match="MLFLOW_AUTH_ALLOWED_HOSTS"):
        client.search_experiments()
    assert not elsewhere.requests
    monkeypatch.setenv("MLFLOW_AUTH_ALLOWED_HOSTS", f"other.example.com, 127.0.0.1:{elsewhere.port}")
    client.search_experiments()
    monkeypatch.delenv("MLFLOW_AUTH_ALLOWED_HOSTS")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", elsewhere.uri)
    client.search_experiments()
    assert [r.values("X-API-Key") for r in elsewhere.requests] == [[KEY], [KEY]]


def test_set_tracking_uri_names_the_server(
    elsewhere: RecordingServer, keyed: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    mlflow.set_tracking_uri(elsewhere.uri)
    ask()
    assert elsewhere.requests[0].values("X-API-Key") == [KEY]


def test_plain_http_to_another_machine_is_refused(keyed: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`0.0.0.0` stands for another machine here: it is none by definition, and answers on this one."""
    address = f"http://0.0.0.0:{keyed.port}"
    monkeypatch.setenv("NO_PROXY", "0.0.0.0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(MlflowException, match="MLFLOW_AUTH_ALLOW_HTTP"):
        ask()
    assert not keyed.requests
    monkeypatch.setenv("MLFLOW_AUTH_ALLOW_HTTP", "true")
    ask()
    assert keyed.requests[0].values("X-API-Key") == [KEY]


def test_a_loop_of_refusals_ends(keyed: RecordingServer) -> None:
    keyed.always(Answer(401))
    with pytest.raises(MlflowException):
        ask()
    assert len(keyed.requests) == 1  # the key is what it is: there is no other to try


def test_a_loop_of_redirects_ends(keyed: RecordingServer) -> None:
    keyed.always(redirect("/again"))
    with pytest.raises(MlflowException):
        ask()
    assert len(keyed.requests) < 50


def test_giant_headers_end_in_an_error(keyed: RecordingServer) -> None:
    keyed.always(Answer(401, {f"X-{n}": "x" * 60000 for n in range(200)}))
    with pytest.raises(MlflowException):
        ask()


def test_a_dripping_refusal_does_not_hold_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A 401 whose body never ends: it is not read before the request is sent again."""
    (tmp_path / "token").write_text("first-token-in-file")
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "token-file")
    monkeypatch.setenv("MLFLOW_AUTH_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    over = threading.Event()
    seen: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for number in range(2):
            connection, _ = listener.accept()
            seen.append(connection.recv(65536))
            if number == 0:
                (tmp_path / "token").write_text("second-token-in-the-file")
                connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 1000000\r\n\r\n")
                threading.Thread(target=drip, args=(connection,), daemon=True).start()
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                connection.close()

    def drip(connection: socket.socket) -> None:
        with connection:
            while not over.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        too_late = threading.Timer(8, over.set)
        too_late.start()
        start = time.monotonic()
        try:
            ask()
        finally:
            too_late.cancel()
            over.set()
        assert time.monotonic() - start < 5
        thread.join(5)
    assert [b"second-token" in text for text in seen] == [False, True]
