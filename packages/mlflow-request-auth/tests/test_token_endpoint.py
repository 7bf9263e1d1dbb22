"""What token endpoints answer besides tokens, and what an operator can get wrong."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.recording import Answer, RecordingServer, redirect
from mlflow_request_auth.tokens import Token, jwt_claims, seconds_until, token_from_response

SECRET = "a-client-secret-0815"


@pytest.fixture
def endpoint(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingServer]:
    """A token endpoint that answers as a test tells it to."""
    with RecordingServer() as endpoint:
        for name, value in {
            "TOKEN_URL": f"{endpoint.uri}/token", "CLIENT_ID": "x", "CLIENT_SECRET": SECRET, "PATIENCE": "0",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"MLFLOW_AUTH_{name}", value)
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "oauth2")
        yield endpoint


def jwt(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(200, body=b"<html>log in to the proxy"), "is no JSON object"),
        (Answer(200, body=b"[]"), "is no JSON object"),
        (Answer(200, body=b"{}"), "no access_token"),
        (Answer(200, body=b'{"access_token": 7}'), "no access_token"),
        (Answer(200, body=b'{"access_token": "a\\r\\nX-Evil: 1"}'), "line break"),
        (Answer(200, body=b'{"access_token": "a", "token_type": "DPoP"}'), "DPoP"),
        (Answer(404, body=b"not here"), "HTTP 404"),
        (Answer(400, body=b'{"error": "invalid_scope"}'), "MLFLOW_AUTH_SCOPE"),
        (Answer(400, body=b'{"error": "made_up", "error_description": "no idea"}'), "made_up: no idea"),
        (Answer(401, body=b'{"error": "invalid_client"}'), "MLFLOW_AUTH_CLIENT_ID"),
        (Answer(429, body=b"{}"), "HTTP 429"),
        (Answer(503, body=b"{}"), "HTTP 503"),
        (Answer(400, body=b'{"error": "temporarily_unavailable"}'), "MLFLOW_AUTH_PATIENCE"),
    ],
)
def test_an_answer_without_a_token(
    server: RecordingServer, endpoint: RecordingServer, answer: Answer, message: str
) -> None:
    endpoint.always(answer)
    with pytest.raises(MlflowException, match=message) as caught:
        mlflow.MlflowClient().search_experiments()
    assert SECRET not in str(caught.value)
    assert not server.requests


def test_a_redirect_of_the_token_endpoint_is_not_followed(server: RecordingServer, endpoint: RecordingServer) -> None:
    """It would take the client's secret along."""
    with RecordingServer() as elsewhere:
        endpoint.always(redirect(f"{elsewhere.uri}/token"))
        with pytest.raises(MlflowException, match="HTTP 307"):
            mlflow.MlflowClient().search_experiments()
        assert not elsewhere.requests


def test_an_echoed_secret_is_not_repeated(server: RecordingServer, endpoint: RecordingServer) -> None:
    body = {"error": "invalid_client", "error_description": f"the secret {SECRET} is wrong"}
    endpoint.always(Answer(400, body=json.dumps(body).encode()))
    with pytest.raises(MlflowException) as caught:
        mlflow.MlflowClient().search_experiments()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TOKEN_URL": ""}, "MLFLOW_AUTH_ISSUER"),
        ({"CLIENT_ID": ""}, "MLFLOW_AUTH_CLIENT_ID"),
        ({"CLIENT_SECRET": "", "CLIENT_AUTH": "client_secret_post"}, "MLFLOW_AUTH_CLIENT_SECRET"),
        ({"CLIENT_AUTH": "private_key_jwt"}, "MLFLOW_AUTH_CLIENT_KEY"),
        ({"CLIENT_AUTH": "tls_client_auth"}, "MLFLOW_AUTH_CLIENT_CERTIFICATE"),
        ({"GRANT": "token_exchange"}, "MLFLOW_AUTH_SUBJECT_TOKEN_FILE"),
        ({"GRANT": "refresh_token"}, "MLFLOW_AUTH_REFRESH_TOKEN"),
        ({"GRANT": "password"}, "MLFLOW_AUTH_GRANT"),
        ({"TIMEOUT": "0"}, "MLFLOW_AUTH_TIMEOUT"),
        ({"PATIENCE": "-1"}, "MLFLOW_AUTH_PATIENCE"),
        ({"REFRESH_AHEAD": "nan"}, "MLFLOW_AUTH_REFRESH_AHEAD"),
        ({"CACHE": "disk"}, "MLFLOW_AUTH_CACHE"),
        ({"TOKEN_URL": "http://login.example.com/token"}, "MLFLOW_AUTH_ISSUER_ALLOW_HTTP"),
        ({"TOKEN_URL": "login.example.com"}, "MLFLOW_AUTH_TOKEN_URL"),
        ({"CA_BUNDLE": "/nowhere/ca.pem", "TOKEN_URL": "https://127.0.0.1:9/token"}, "MLFLOW_AUTH_CA_BUNDLE"),
    ],
)
def test_wrong_settings_are_one_sentence(
    server: RecordingServer, endpoint: RecordingServer, variables: dict[str, str], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_AUTH_{name}", value)
    with pytest.raises(MlflowException, match=message):
        mlflow.MlflowClient().search_experiments()
    assert not server.requests
    assert not endpoint.requests


@pytest.mark.parametrize(
    ("response", "lifetime"),
    [
        ({"expires_in": 300}, 300),
        ({"expires_in": "300"}, 300),
        ({"expires_in": None}, None),
        ({"expires_in": -5}, None),
        ({"expires_in": 1e30}, None),
        ({"expires_in": "soon"}, None),
        ({"access_token": jwt(iat=1000, exp=1600)}, 600),
        ({"access_token": jwt(exp="soon")}, None),
        ({"access_token": jwt(iat=1000, exp=1600), "expires_in": 60}, 60),
    ],
)
def test_how_long_a_token_lasts(response: dict[str, object], lifetime: float | None) -> None:
    """`expires_in` from now, else what the token itself says, whatever the two clocks show."""
    token = token_from_response({"access_token": "a", **response})
    assert token.lifetime == lifetime
    assert (token.expires_at is None) is (lifetime is None)


def test_what_a_refresh_leaves_out_lives_on() -> None:
    before = token_from_response({"access_token": jwt(sub="ada"), "refresh_token": "r", "scope": "s"})
    after = token_from_response({"access_token": "b"}, before)
    assert (after.refresh_token, after.subject, after.scope) == ("r", "ada", "s")
    assert Token.from_json(after.to_json()) == after


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.!!.c", jwt().replace("e30", "x"), "a.WzFd.c", "a.\udcff.c"])
def test_any_text_may_be_asked_for_claims(text: str) -> None:
    assert jwt_claims(text) == {}


@pytest.mark.parametrize("form", ["{}Z", "{}z", "{}+00:00", "{}.123456789Z", "{}"])
def test_timestamps(form: str) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 100))
    assert 95 < seconds_until(form.format(moment)) < 101
