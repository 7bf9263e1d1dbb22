"""Each provider against the conformance kit, and the precedence of all that can authenticate a request."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import mlflow
import pytest
from real_kdc import Kdc
from real_oidc import SECRET, OidcProvider

from mlflow_plugkit_testing.auth import Credentials, RequestAuthProviderConformance, rival_credentials
from mlflow_plugkit_testing.providers import registered_provider
from mlflow_plugkit_testing.recording import RecordingServer
from mlflow_request_auth import selection

TOKEN = "a-token-of-somebody-else-31"


class _Suite(RequestAuthProviderConformance):
    """The tracking server is the kit's; what the process keeps is dropped between rules."""

    def reset(self) -> None:
        selection.forget()


class TestOAuth2(_Suite):
    provider_name = "oauth2"
    variables = ("MLFLOW_AUTH_ISSUER", "MLFLOW_AUTH_CLIENT_ID", "MLFLOW_AUTH_CLIENT_SECRET", "MLFLOW_AUTH_GRANT")

    @pytest.fixture
    def configured(self, server: RecordingServer, oidc: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_AUTH_ISSUER", oidc.issuer)
        monkeypatch.setenv("MLFLOW_AUTH_CLIENT_ID", "service")
        monkeypatch.setenv("MLFLOW_AUTH_CLIENT_SECRET", SECRET)
        return Credentials(secrets=(SECRET,))


class TestApiKey(_Suite):
    provider_name = "api-key"
    variables = ("MLFLOW_AUTH_API_KEY", "MLFLOW_AUTH_API_KEY_FILE", "MLFLOW_AUTH_API_KEY_HEADER")

    @pytest.fixture
    def configured(self, server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_AUTH_API_KEY", TOKEN)
        return Credentials(secrets=(TOKEN,), header="X-API-Key", value=TOKEN)


class TestTokenFile(_Suite):
    provider_name = "token-file"
    variables = ("MLFLOW_AUTH_TOKEN_FILE",)

    @pytest.fixture
    def configured(self, server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_AUTH_TOKEN_FILE", str(tmp_path / "token"))
        return Credentials(secrets=(TOKEN,), value=f"Bearer {TOKEN}")


class TestCommand(_Suite):
    provider_name = "command"
    variables = ("MLFLOW_AUTH_COMMAND",)

    @pytest.fixture
    def configured(self, server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        (tmp_path / "helper.py").write_text(f"print({TOKEN!r})")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_AUTH_COMMAND", f"'{sys.executable}' '{tmp_path / 'helper.py'}'")
        return Credentials(secrets=(TOKEN,), value=f"Bearer {TOKEN}")


class TestProfiles(_Suite):
    provider_name = "profiles"
    variables = ("MLFLOW_AUTH_PROFILES",)

    @pytest.fixture
    def unconfigured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_AUTH_PROFILES", str(tmp_path / "none.toml"))

    @pytest.fixture
    def configured(self, server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        (tmp_path / "token").write_text(TOKEN)
        path = json.dumps(str(tmp_path / "token"))
        table = f'[hosts."127.0.0.1:{server.port}"]\nauth = "token-file"\ntoken_file = {path}'
        (tmp_path / "profiles.toml").write_text(table)
        monkeypatch.setenv("MLFLOW_AUTH_PROFILES", str(tmp_path / "profiles.toml"))
        return Credentials(secrets=(TOKEN,), value=f"Bearer {TOKEN}")


class TestKerberos(_Suite):
    provider_name = "kerberos"
    variables = ("MLFLOW_AUTH_KERBEROS_HOST",)

    @pytest.fixture
    def unconfigured(self, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'nobody'}")

    @pytest.fixture
    def configured(
        self, server: RecordingServer, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Credentials:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_AUTH_KERBEROS_HOST", "localhost")
        monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{kdc.kinit(tmp_path)}")
        return Credentials(secrets=(kdc.password,))


@pytest.fixture
def everything(server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingServer:
    """The tracking server, with a token file as the provider's credentials."""
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("MLFLOW_AUTH_TOKEN_FILE", str(tmp_path / "token"))
    return server


NETRC = "Basic " + base64.b64encode(b"rival:rival").decode()


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (("token",), "Bearer rival"),
        (("password",), NETRC),
        (("header provider",), "Bearer rival"),
        (("netrc",), NETRC),
        (("token", "netrc"), NETRC),
        (("header provider", "netrc"), NETRC),
        (("provider",), f"Bearer {TOKEN}"),
        (("provider", "token"), f"Bearer {TOKEN}"),
        (("provider", "netrc"), f"Bearer {TOKEN}"),
        (("provider", "header provider"), f"Bearer {TOKEN}"),
        (("provider", "password", "token", "netrc", "header provider"), f"Bearer {TOKEN}"),
    ],
    ids=lambda value: " + ".join(value) if isinstance(value, tuple) else "",
)
def test_precedence(
    everything: RecordingServer,
    present: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The README's table of what wins, row by row."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        for rival in present:
            if rival == "provider":
                monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "token-file")
            else:
                stack.enter_context(rival_credentials(rival, "Authorization", tmp_path, monkeypatch))
        mlflow.MlflowClient().search_experiments()
    assert everything.requests[-1].values("Authorization") == [expected]


def test_an_api_key_in_another_header_leaves_authorization_alone(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "api-key")
    monkeypatch.setenv("MLFLOW_AUTH_API_KEY", TOKEN)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "for-the-gateway")
    mlflow.MlflowClient().search_experiments()
    (request,) = server.requests
    assert request.values("X-API-Key") == [TOKEN]
    assert request.values("Authorization") == ["Bearer for-the-gateway"]


@pytest.mark.parametrize("name", ["oauth", "OAuth2", "nobody-knows-this", " oauth2"])
def test_an_unknown_name_stops(server: RecordingServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """MLflow alone would warn and send the request without credentials."""
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", name)
    with pytest.raises(mlflow.MlflowException, match="no installed plugin provides that") as caught:
        mlflow.MlflowClient().search_experiments()
    assert "'oauth2'" in str(caught.value)
    assert not server.requests


def test_another_plugins_name_is_left_to_it(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that plugin comes later in MLflow's list."""
    from mlflow.tracking.request_auth.registry import _request_auth_provider_registry as registry

    class Theirs:
        def get_name(self) -> str:
            return "theirs"

        def get_auth(self) -> tuple[str, str]:
            return ("them", "theirs")

    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "theirs")
    with registered_provider(registry, Theirs, Theirs()):
        mlflow.MlflowClient().search_experiments()
    assert server.requests[0].values("Authorization") == ["Basic " + base64.b64encode(b"them:theirs").decode()]
