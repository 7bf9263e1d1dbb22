"""The grants of OAuth 2.0 against a real OpenID Connect provider."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from real_oidc import SECRET, OidcProvider

from mlflow_plugkit_testing.recording import Answer, RecordingServer
from mlflow_request_auth import selection


def ask() -> None:
    """One call of MLflow's own client."""
    mlflow.MlflowClient().search_experiments()


def token_of(server: RecordingServer, index: int = -1) -> str:
    (value,) = server.requests[index].values("Authorization")
    scheme, _, token = value.partition(" ")
    assert scheme == "Bearer"
    return token


def test_client_credentials_by_basic(server: RecordingServer, service: OidcProvider) -> None:
    """Id and secret go form-encoded into HTTP Basic, so that a secret with '+', '/' and '%' works."""
    ask()
    assert service.is_active(token_of(server))


def test_client_credentials_by_post(
    server: RecordingServer, service: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_CLIENT_ID", "service-post")
    monkeypatch.setenv("MLFLOW_AUTH_CLIENT_AUTH", "client_secret_post")
    ask()
    assert service.is_active(token_of(server))


def test_one_token_serves_many_requests(server: RecordingServer, service: OidcProvider) -> None:
    before = service.grants("service")
    for _ in range(5):
        ask()
    assert len({token_of(server, n) for n in range(5)}) == 1
    assert service.grants("service") == before + 1


def test_200_concurrent_requests_make_one_token_request(server: RecordingServer, service: OidcProvider) -> None:
    before = service.grants("service")
    start = threading.Barrier(200, timeout=30)

    def run() -> None:
        start.wait()
        ask()

    with ThreadPoolExecutor(200) as pool:
        for done in [pool.submit(run) for _ in range(200)]:
            done.result(60)
    assert len(server.requests) == 200
    assert len({token_of(server, n) for n in range(200)}) == 1
    assert service.grants("service") == before + 1


def test_revocation_in_mid_run(server: RecordingServer, service: OidcProvider) -> None:
    """A token that the server refuses is replaced once, and the request sent again."""
    ask()
    first = token_of(server)
    service.revoke(first)
    assert not service.is_active(first)
    server.answer(Answer(401))
    ask()
    assert len(server.requests) == 3
    assert token_of(server) != first
    assert service.is_active(token_of(server))


def test_wrong_secret_is_one_sentence(
    server: RecordingServer, service: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_CLIENT_SECRET", "wrong-" + SECRET)
    with pytest.raises(MlflowException, match="MLFLOW_AUTH_CLIENT_ID") as caught:
        ask()
    assert SECRET not in str(caught.value)
    assert not server.requests


def test_scope_audience_and_resource_are_asked_for(
    server: RecordingServer, service: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_SCOPE", "mlflow")
    monkeypatch.setenv("MLFLOW_AUTH_RESOURCE", "urn:jwt:mlflow:90s")
    ask()
    from mlflow_request_auth.tokens import jwt_claims

    claims = jwt_claims(token_of(server))
    assert (claims["aud"], claims["scope"], claims["exp"] - claims["iat"]) == ("urn:jwt:mlflow:90s", "mlflow", 90)


def test_another_issuers_metadata_is_refused(
    server: RecordingServer, service: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8414, 3.3: the issuer in the metadata has to be the one that was asked for."""
    monkeypatch.setenv("MLFLOW_AUTH_ISSUER", service.issuer.replace("127.0.0.1", "localhost"))
    with pytest.raises(MlflowException, match="calls itself"):
        ask()


def test_the_secret_is_in_no_repr(server: RecordingServer, service: OidcProvider) -> None:
    ask()
    auth = selection.auth_for("oauth2")
    credential = selection.credential_from("oauth2", __import__("os").environ)
    shown = f"{auth!r} {vars(auth)!r} {credential!r} {vars(credential)!r} {vars(credential.source)!r}"  # type: ignore[attr-defined]
    assert token_of(server) not in shown
    assert SECRET not in shown
