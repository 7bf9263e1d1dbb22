"""The life of a token: renewed early by one, shared by many, surviving outages, forks and restarts."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from real_oidc import SECRET, OidcProvider, wait_until

from mlflow_plugkit_testing.auth import send
from mlflow_plugkit_testing.recording import Answer, RecordingServer
from mlflow_plugkit_testing.server import plugin_env
from mlflow_request_auth.oauth2 import OAuth2Client
from mlflow_request_auth.settings import OAuth2Settings
from mlflow_request_auth.source import TokenSource, Unavailable
from mlflow_request_auth.store import FileStore, MemoryStore
from mlflow_request_auth.tokens import Token


def ask(server: RecordingServer) -> str:
    mlflow.MlflowClient().search_experiments()
    return server.requests[-1].values("Authorization")[0].removeprefix("Bearer ")


@pytest.fixture
def own(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OidcProvider]:
    """A provider of the test's own, which may be stopped."""
    with OidcProvider() as provider:
        for name, value in {
            "MLFLOW_TRACKING_AUTH": "oauth2",
            "MLFLOW_AUTH_ISSUER": provider.issuer,
            "MLFLOW_AUTH_CLIENT_ID": "service",
            "MLFLOW_AUTH_CLIENT_SECRET": SECRET,
            "MLFLOW_AUTH_TIMEOUT": "1",
        }.items():
            monkeypatch.setenv(name, value)
        yield provider


def test_an_outage_is_not_noticed_while_the_token_is_valid(
    server: RecordingServer, own: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is away for as long as the token should have been renewed; then a new one comes."""
    monkeypatch.setenv("MLFLOW_AUTH_RESOURCE", "urn:mlflow:4s")
    first = ask(server)
    own.stop()
    end = time.monotonic() + 3.2  # the renewal is due after 2.8 s
    while time.monotonic() < end:
        assert ask(server) == first
    own.start()
    wait_until(lambda: ask(server) != first, 10)


def test_an_outage_is_waited_out_where_no_token_is_left(
    server: RecordingServer, own: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_PATIENCE", "20")
    own.stop()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, server) for _ in range(4)]
        time.sleep(0.6)
        assert not any(w.done() for w in waiting)
        own.start()
        tokens = {w.result(20) for w in waiting}
    assert len(tokens) == 1
    assert own.grants("service") == 1


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_an_outage_without_end_ends_in_a_sentence(
    server: RecordingServer, own: OidcProvider, monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    """Refused connections and silence alike; all requests that waited share the one failure."""
    monkeypatch.setenv("MLFLOW_AUTH_PATIENCE", "1")
    getattr(own, outage)()
    start = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        failures = [pool.submit(ask, server).exception(30) for _ in range(10)]
    assert time.monotonic() - start < 8
    assert all(isinstance(f, MlflowException) and "MLFLOW_AUTH_PATIENCE" in str(f) for f in failures)
    assert not server.requests


def test_a_refused_secret_is_tried_once_by_a_crowd(
    server: RecordingServer, own: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred attempts with a wrong secret would lock the account."""
    attempts: list[int] = []
    ask_once = OAuth2Client._ask
    monkeypatch.setattr(OAuth2Client, "_ask", lambda *arguments: (attempts.append(1), ask_once(*arguments))[1])
    monkeypatch.setenv("MLFLOW_AUTH_CLIENT_SECRET", "wrong-secret-wrong-secret")
    with ThreadPoolExecutor(20) as pool:
        failures = [pool.submit(ask, server).exception(30) for _ in range(20)]
    assert all(isinstance(f, MlflowException) for f in failures)
    assert len(attempts) == 1


class Fake:
    """A token endpoint in memory, for what cannot be timed over a network."""

    def __init__(self, life: float = 10.0) -> None:
        self.life = life
        self.calls = 0
        self.entered = threading.Event()
        self.proceed = threading.Event()
        self.proceed.set()
        self.failure: Exception | None = None

    def fetch(self, previous: Token | None) -> Token:
        self.calls += 1
        self.entered.set()
        assert self.proceed.wait(10)
        if self.failure:
            raise self.failure
        return Token(f"token-{self.calls}", time.time() + self.life, self.life)


def source(fake: Fake, store: Any = None, **settings: Any) -> TokenSource:
    values = {"token_url": "http://localhost/token", "client_id": "x", **settings}
    return TokenSource(fake.fetch, store or MemoryStore(), OAuth2Settings(**values))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Move the wall clock and the monotonic clock of this process ahead."""
    moved = {"time": 0.0, "monotonic": 0.0}
    real = {"time": time.time, "monotonic": time.monotonic}
    for name in moved:
        monkeypatch.setattr(time, name, lambda name=name: real[name]() + moved[name])

    def move(wall: float, monotonic: float) -> None:
        moved["time"] += wall
        moved["monotonic"] += monotonic

    return move


def test_one_thread_renews_while_the_others_go_on(clock: Callable[[float, float], None]) -> None:
    fake = Fake()
    tokens = source(fake)
    assert tokens.token().access_token == "token-1"
    clock(8, 8)  # 2 of 10 seconds are left: due (30 %), valid (10 %)
    fake.proceed.clear()
    fake.entered.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(tokens.token)
        assert fake.entered.wait(5)
        assert [tokens.token().access_token for _ in range(20)] == ["token-1"] * 20
        fake.proceed.set()
        assert renewing.result(5).access_token == "token-2"
    assert tokens.token().access_token == "token-2"
    assert fake.calls == 2


def test_a_body_that_cannot_be_sent_twice_waits_for_the_renewal(clock: Callable[[float, float], None]) -> None:
    fake = Fake()
    tokens = source(fake)
    tokens.token()
    clock(8, 8)
    assert tokens.token(resendable=False).access_token == "token-2"


@pytest.mark.parametrize(("wall", "monotonic"), [(3600, 0), (-3600, 9.5), (0, 9.5), (9.5, 9.5)])
def test_a_clock_that_is_set_does_not_prolong_a_token(
    clock: Callable[[float, float], None], wall: float, monotonic: float
) -> None:
    fake = Fake()
    tokens = source(fake)
    tokens.token()
    clock(wall, monotonic)
    assert tokens.token().access_token == "token-2"


def test_attempts_to_renew_early_are_spaced(clock: Callable[[float, float], None]) -> None:
    fake = Fake(life=1000)
    tokens = source(fake)
    tokens.token()
    fake.failure = Unavailable("down")
    clock(950, 950)
    for _ in range(200):
        assert tokens.token().access_token == "token-1"
    assert fake.calls == 2
    fake.failure = None
    clock(20, 20)
    assert tokens.token().access_token == "token-3"


def test_a_server_that_refuses_every_token_gets_few() -> None:
    """A hostile or broken tracking server must not make us hammer the token provider."""
    fake = Fake()
    tokens = source(fake)
    first = tokens.token().access_token
    second = tokens.replace(first)
    assert second is not None
    for _ in range(50):
        assert tokens.replace(second.access_token) is None
    assert fake.calls == 2
    tokens.accepted()
    assert tokens.replace(second.access_token) is not None


def test_a_crowd_whose_token_was_refused_renews_once() -> None:
    fake = Fake()
    tokens = source(fake)
    first = tokens.token().access_token
    with ThreadPoolExecutor(30) as pool:
        got = {t.access_token for t in pool.map(lambda _: tokens.replace(first), range(30)) if t}
    assert got == {"token-2"}


def test_an_unknown_end_is_used_until_it_is_refused(clock: Callable[[float, float], None]) -> None:
    fake = Fake()
    tokens = TokenSource(lambda previous: Token(fake.fetch(None).access_token), MemoryStore(), source(fake)._settings)
    tokens.token()
    clock(1e6, 1e6)
    assert tokens.token().access_token == "token-1"


def test_a_token_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").mkdir()
    fake = Fake()
    store = FileStore(tmp_path / "store", "k")
    store.save = lambda token: (_ for _ in ()).throw(  # type: ignore[method-assign]
        MlflowException("The disk is full.")
    )
    with caplog.at_level(logging.WARNING):
        assert source(fake, store).token().access_token == "token-1"
    assert "serves this process only" in caplog.text
    assert "token-1" not in caplog.text


def test_a_rotated_refresh_token_that_could_not_be_kept_is_not_lost(
    tmp_path: Path, clock: Callable[[float, float], None]
) -> None:
    """The stored one was used up; presenting it again would end the login."""
    (tmp_path / "store").mkdir(mode=0o700)
    store = FileStore(tmp_path / "store", "k")
    presented: list[str | None] = []

    def fetch(previous: Token | None) -> Token:
        presented.append(previous and previous.refresh_token)
        return Token(f"access-{len(presented)}", time.time() + 10, 10, refresh_token=f"refresh-{len(presented)}")

    store.save(Token("access-0", time.time() - 5, 10, refresh_token="refresh-0"))
    store.save = lambda token: (_ for _ in ()).throw(MlflowException("The disk is full."))  # type: ignore[method-assign]
    tokens = TokenSource(fetch, store, source(Fake())._settings)
    for _ in range(3):
        tokens.token()
        clock(20, 20)
    assert presented == ["refresh-0", "refresh-1", "refresh-2"]


SCRIPT = """
import sys, mlflow
from mlflow.tracking.request_auth.registry import fetch_auth
import requests
for line in sys.stdin:
    request = requests.Request('GET', sys.argv[1], auth=fetch_auth('oauth2')).prepare()
    print(request.headers['Authorization'], flush=True)
"""


def test_processes_share_one_token(server: RecordingServer, own: OidcProvider, tmp_path: Path) -> None:
    """Two processes that start and ask at once get one token from the provider, through one file."""
    env = plugin_env(env={"MLFLOW_AUTH_CACHE": "file", "MLFLOW_AUTH_TIMEOUT": "10"})
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, server.uri],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdin
            process.stdin.write("\n" * 20)
            process.stdin.close()
        lines = [line for process in processes for line in (process.stdout or io.StringIO()).read().split("\n") if line]
        assert [process.wait(60) for process in processes] == [0] * 2
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
            assert process.stdout
            process.stdout.close()
    assert len(lines) == 40
    assert len(set(lines)) == 1
    assert own.grants("service") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_renewal_goes_on(
    server: RecordingServer, own: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DataLoader worker: the lock that another thread held at the fork is not held in the child."""
    inside, fetch = threading.Event(), OAuth2Client.fetch
    monkeypatch.setattr(OAuth2Client, "fetch", lambda *arguments: (inside.set(), fetch(*arguments))[1])
    monkeypatch.setenv("MLFLOW_AUTH_TIMEOUT", "20")
    own.freeze()
    try:
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(ask, server)
            assert inside.wait(10)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    own.thaw()
                    code = 0 if ask_in_child(server) else 2
                finally:
                    os._exit(code)
            end = time.monotonic() + 20
            status = None
            while time.monotonic() < end and status is None:
                done, found = os.waitpid(child, os.WNOHANG)
                status = found if done else None
                time.sleep(0.02)
            if status is None:
                os.kill(child, 9)
                os.waitpid(child, 0)
            assert status == 0, "the forked worker hung or failed"
            stuck.result(30)
    finally:
        own.thaw()


def ask_in_child(server: RecordingServer) -> bool:
    import requests
    from mlflow.tracking.request_auth.registry import fetch_auth

    request = requests.Request("GET", server.uri, auth=fetch_auth("oauth2")).prepare()
    return str(request.headers["Authorization"]).startswith("Bearer ")


BODY = bytes(range(256)) * 2000


@pytest.mark.parametrize("form", ["bytes", "file", "stream", "file from its middle"])
def test_a_refused_upload_is_sent_again_whole(
    server: RecordingServer, own: OidcProvider, tmp_path: Path, form: str
) -> None:
    (tmp_path / "data").write_bytes(BODY)
    with (tmp_path / "data").open("rb") as file:
        body: Any = {"bytes": BODY, "stream": io.BytesIO(BODY)}.get(form, file)
        expected = BODY
        if "middle" in form:
            file.seek(1000)
            expected = BODY[1000:]
        server.answer(Answer(401))
        assert send(server, body).status_code == 200
    first, second = server.requests
    assert (first.body, second.body) == (expected, expected)
    assert first.values("Authorization") != second.values("Authorization")


def test_a_generators_refusal_reaches_the_caller(server: RecordingServer, own: OidcProvider) -> None:
    """It cannot be sent twice, so that the 401 stands; half a body would be worse."""
    server.answer(Answer(401))
    assert send(server, (part for part in [b"abc", b"def"])).status_code == 401
    assert [r.body for r in server.requests] == [b"abcdef"]
