"""Clients that prove themselves by key, certificate or file; logins; exchanged and presented tokens."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from mlflow.exceptions import MlflowException
from real_oidc import CLIENTS, SECRET, Browser, OidcProvider

from mlflow_plugkit_testing.recording import Answer, RecordingServer
from mlflow_request_auth import client_auth, oauth2, selection
from mlflow_request_auth.login import browser_login, device_login
from mlflow_request_auth.settings import OAuth2Settings
from mlflow_request_auth.tokens import Token

PASSPHRASE = "the key's passphrase"
KEYS: dict[str, tuple[Any, Any]] = {
    "rsa": (rsa.generate_private_key(65537, 2048), RSAKey),
    "ec": (ec.generate_private_key(ec.SECP256R1()), ECKey),
}


def pem(key: Any, passphrase: str | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def public(kind: str) -> dict[str, Any]:
    key, cls = KEYS[kind]
    return dict(cls.import_key(pem(key)).as_dict(private=False))


def signed(audience: str, subject: str, issuer: str = "https://cluster.example", life: int = 300) -> str:
    """A token as a cluster projects it into a pod."""
    now = int(time.time())
    claims = {"iss": issuer, "sub": subject, "aud": audience, "iat": now, "exp": now + life, "jti": os.urandom(8).hex()}
    return str(jwt.encode({"alg": "RS256"}, claims, RSAKey.import_key(pem(KEYS["rsa"][0]))))


@pytest.fixture(scope="module")
def oidc() -> Iterator[OidcProvider]:
    """The provider, with clients that are known by their public keys."""
    signing = [
        {
            "client_id": kind,
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": {"rsa": "RS256", "ec": "ES256"}[kind],
            "jwks": {"keys": [public(kind)]},
            "scope": "mlflow",
        }
        for kind in KEYS
    ]
    with OidcProvider(CLIENTS + signing, federation={"keys": [public("rsa")]}) as provider:
        yield provider


@pytest.fixture
def configure(oidc: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_all(**values: str) -> None:
        for name, value in {"issuer": oidc.issuer, **values}.items():
            monkeypatch.setenv(f"MLFLOW_AUTH_{name.upper()}", value)
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "oauth2")

    return set_all


def ask(server: RecordingServer) -> str:
    """One call of MLflow's own client, and the token that it brought."""
    mlflow.MlflowClient().search_experiments()
    (value,) = server.requests[-1].values("Authorization")
    return value.removeprefix("Bearer ")


@pytest.mark.parametrize("kind", list(KEYS))
def test_private_key_jwt(
    server: RecordingServer, oidc: OidcProvider, configure: Any, tmp_path: Path, kind: str
) -> None:
    """The key may have a passphrase, which comes from a file; the second token has an assertion of its own."""
    (tmp_path / "key.pem").write_bytes(pem(KEYS[kind][0], PASSPHRASE))
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    configure(
        client_id=kind, client_key=str(tmp_path / "key.pem"), client_key_passphrase_file=str(tmp_path / "passphrase")
    )
    first = ask(server)
    assert oidc.is_active(first)
    server.answer(Answer(401))
    assert ask(server) != first


def test_private_key_jwt_names_its_certificate(tmp_path: Path, server: RecordingServer, configure: Any) -> None:
    """The assertion carries the certificate's thumbprints, by which some providers find the key."""
    certificate = trustme.CA().issue_cert("client.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    configure(client_id="rsa", client_certificate=str(tmp_path / "client.pem"))
    key = client_auth.load_key(OAuth2Settings.from_env())
    assert set(key.headers) == {"x5t", "x5t#S256"}


@pytest.mark.parametrize("ahead", [-600, 600])
def test_clocks_may_differ(
    server: RecordingServer, oidc: OidcProvider, configure: Any, tmp_path: Path, ahead: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A machine whose clock is ten minutes off signs assertions by the provider's clock."""
    (tmp_path / "key.pem").write_bytes(pem(KEYS["rsa"][0]))
    configure(client_id="rsa", client_key=str(tmp_path / "key.pem"), token_url=f"{oidc.issuer}/token")
    monkeypatch.delenv("MLFLOW_AUTH_ISSUER")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    token = ask(server)
    monkeypatch.setattr(time, "time", real)
    assert oidc.is_active(token)


def test_a_wrong_passphrase_is_explained(
    server: RecordingServer, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_bytes(pem(KEYS["rsa"][0], PASSPHRASE))
    configure(client_id="rsa", client_key=str(tmp_path / "key.pem"))
    with pytest.raises(MlflowException, match="is encrypted: give its passphrase"):
        ask(server)
    monkeypatch.setenv("MLFLOW_AUTH_CLIENT_KEY_PASSPHRASE", "another passphrase")
    with pytest.raises(MlflowException, match="passphrase is another one") as caught:
        ask(server)
    assert "another passphrase" not in str(caught.value)


def test_mutual_tls_client_authentication(
    server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8705, 2.1, with certificate and encrypted key in files of their own."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("training.example")
    own.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    key = serialization.load_pem_private_key(client.private_key_pem.bytes(), None)
    (tmp_path / "client.key").write_bytes(pem(key, PASSPHRASE))
    entry = {
        "client_id": "mtls", "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [],
        "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_dns": "training.example",
        "scope": "mlflow",
    }  # fmt: skip
    files = {"cert": "server.pem", "key": "server.key", "ca": "ca.pem"}
    with OidcProvider([entry], tls={name: str(tmp_path / file) for name, file in files.items()}) as provider:
        for name, value in {
            "ISSUER": provider.issuer, "CLIENT_ID": "mtls", "CLIENT_AUTH": "tls_client_auth",
            "CLIENT_CERTIFICATE": str(tmp_path / "client.pem"), "CLIENT_KEY": str(tmp_path / "client.key"),
            "CLIENT_KEY_PASSPHRASE": PASSPHRASE, "CA_BUNDLE": str(tmp_path / "ca.pem"),
        }.items():  # fmt: skip
            monkeypatch.setenv(f"MLFLOW_AUTH_{name}", value)
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "oauth2")
        ask(server)
        assert provider.grants("mtls") == 1
        monkeypatch.setenv("MLFLOW_AUTH_CA_BUNDLE", "")
        with pytest.raises(MlflowException, match="MLFLOW_AUTH_CA_BUNDLE"):
            ask(server)


def test_workload_identity(server: RecordingServer, oidc: OidcProvider, configure: Any, tmp_path: Path) -> None:
    """A projected token proves the client (RFC 7523, 2.2); each token request reads it anew."""
    (tmp_path / "projected").write_text(signed(oidc.issuer, "rsa", issuer="rsa"))
    configure(client_id="rsa", client_assertion_file=str(tmp_path / "projected"))
    first = ask(server)
    (tmp_path / "projected").write_text(signed(oidc.issuer, "rsa", issuer="rsa"))
    server.answer(Answer(401))
    second = ask(server)
    assert first != second
    assert oidc.is_active(second)


@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
def test_a_foreign_token_is_turned_into_one_of_the_provider(
    server: RecordingServer, oidc: OidcProvider, configure: Any, tmp_path: Path, grant: str
) -> None:
    """RFC 8693 and RFC 7523, 2.1."""
    (tmp_path / "projected").write_text(signed(oidc.issuer, "system:serviceaccount:ml:training"))
    configure(client_id="exchange", client_secret=SECRET, grant=grant, subject_token_file=str(tmp_path / "projected"))
    assert oidc.is_active(ask(server))


def test_an_expired_foreign_token_is_explained(
    server: RecordingServer, oidc: OidcProvider, configure: Any, tmp_path: Path
) -> None:
    (tmp_path / "projected").write_text(signed(oidc.issuer, "training", life=-100))
    configure(
        client_id="exchange",
        client_secret=SECRET,
        grant="token_exchange",
        subject_token_file=str(tmp_path / "projected"),
    )
    with pytest.raises(MlflowException, match="renew the token file"):
        ask(server)


def device(client: oauth2.OAuth2Client) -> Token:
    """A device login that somebody confirms on another device."""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        address = next(word for word in line.split() if word.startswith("http"))
        threading.Thread(target=Browser().confirm_device, args=(address,), daemon=True).start()

    token = device_login(client, say, sleep=lambda seconds: time.sleep(min(seconds, 0.1)))
    assert "confirm the code" in lines[0]
    return token


def browser(client: oauth2.OAuth2Client) -> Token:
    """A login with a browser on this machine."""

    def show(page: str) -> None:
        assert "code_challenge_method=S256" in page
        threading.Thread(target=Browser().open, args=(page,), daemon=True).start()

    return browser_login(client, show, wait=30)


@pytest.fixture
def logged_in(request: pytest.FixtureRequest, configure: Any) -> Token:
    """A login that training scripts find in the token file."""
    grant, flow = {"device": ("device_code", device), "browser": ("authorization_code", browser)}[request.param]
    configure(client_id="laptop", grant=grant, scope="openid offline_access mlflow")
    settings = OAuth2Settings.from_env()
    token = flow(oauth2.OAuth2Client(settings))
    oauth2.credential(settings).source.hold(token)
    return token


@pytest.mark.parametrize("logged_in", ["device", "browser"], indirect=True)
def test_login_and_rotating_refresh_tokens(server: RecordingServer, oidc: OidcProvider, logged_in: Token) -> None:
    """The script uses the login; each refresh replaces the refresh token, as the provider rotates it."""
    assert ask(server) == logged_in.access_token
    assert logged_in.subject == "ada"
    refresh = {logged_in.refresh_token}
    for _ in range(3):
        server.answer(Answer(401))
        assert oidc.is_active(ask(server))
        kept = oauth2.store_of(OAuth2Settings.from_env()).load()
        assert kept is not None
        assert kept.refresh_token not in refresh
        refresh.add(kept.refresh_token)


@pytest.mark.parametrize("logged_in", ["device"], indirect=True)
def test_a_revoked_login_says_what_to_do(server: RecordingServer, oidc: OidcProvider, logged_in: Token) -> None:
    oidc.revoke(str(logged_in.refresh_token))
    server.always(Answer(401))
    with pytest.raises(MlflowException, match="mlflow-auth login"):
        ask(server)


def test_without_a_login_the_script_stops_at_once(server: RecordingServer, configure: Any) -> None:
    """No prompt and no browser in the middle of a training job."""
    configure(client_id="laptop", grant="device_code")
    start = time.monotonic()
    with pytest.raises(MlflowException, match=r"Nobody is logged in\. Run `mlflow-auth login`"):
        ask(server)
    assert time.monotonic() - start < 2
    assert not server.requests


@pytest.mark.parametrize("logged_in", ["device"], indirect=True)
def test_a_given_refresh_token_is_used_once_and_kept_up(
    server: RecordingServer, oidc: OidcProvider, logged_in: Token, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant `refresh_token`: rotated ones go to the token file, and a new process takes them from there."""
    configure(grant="refresh_token", refresh_token=str(logged_in.refresh_token))
    first = ask(server)
    assert oidc.is_active(first)
    selection.forget()
    assert ask(server) == first
    server.answer(Answer(401))
    assert oidc.is_active(ask(server))


def test_a_forged_answer_does_not_end_the_login(oidc: OidcProvider, configure: Any) -> None:
    """Answers without our state are turned away, and the login goes on (RFC 6749, 10.12)."""
    import requests

    configure(client_id="laptop", grant="authorization_code", scope="openid offline_access mlflow")
    statuses: list[int] = []

    def attack_first(page: str) -> None:
        from urllib.parse import parse_qs, urlsplit

        door = parse_qs(urlsplit(page).query)["redirect_uri"][0]

        def run() -> None:
            statuses.append(requests.get(f"{door}?code=forged&state=forged", timeout=10).status_code)
            Browser().open(page)

        threading.Thread(target=run, daemon=True).start()

    token = browser_login(oauth2.OAuth2Client(OAuth2Settings.from_env()), attack_first, wait=30)
    assert statuses == [400]
    assert oidc.is_active(token.access_token)


def test_nobody_comes_back(oidc: OidcProvider, configure: Any) -> None:
    configure(client_id="laptop", grant="authorization_code")
    with pytest.raises(MlflowException, match="did not come back"):
        browser_login(oauth2.OAuth2Client(OAuth2Settings.from_env()), lambda page: None, wait=0.2)


def test_a_token_file_is_private(server: RecordingServer, configure: Any, tmp_path: Path) -> None:
    """0600 in a folder of 0700, whatever the umask; a file that others can read is refused."""
    configure(client_id="service", client_secret=SECRET, cache="file")
    before = os.umask(0)
    try:
        ask(server)
    finally:
        os.umask(before)
    (file,) = (tmp_path / "tokens").glob("*.json")
    assert oct(file.stat().st_mode)[-3:] == "600"
    assert oct(file.parent.stat().st_mode)[-3:] == "700"
    assert json.loads(file.read_text())["expires_at"] > time.time()
    file.chmod(0o644)
    selection.forget()
    with pytest.raises(MlflowException, match="can be read by others"):
        ask(server)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"access_token": 7}'])
def test_a_broken_token_file_is_written_anew(
    server: RecordingServer, oidc: OidcProvider, configure: Any, tmp_path: Path, content: bytes
) -> None:
    configure(client_id="service", client_secret=SECRET, cache="file")
    store: Any = oauth2.store_of(OAuth2Settings.from_env())
    store.folder.mkdir(mode=0o700)
    store.path.touch(mode=0o600)
    store.path.write_bytes(content)
    assert oidc.is_active(ask(server))
    assert store.load() is not None


def test_the_keyring(server: RecordingServer, oidc: OidcProvider, configure: Any) -> None:
    """With an in-memory backend in the place of the operating system's."""
    import keyring
    from keyring.backend import KeyringBackend

    class Memory(KeyringBackend):
        priority = 1  # type: ignore[assignment]
        kept: dict[tuple[str, str], str] = {}

        def get_password(self, service: str, username: str) -> str | None:
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    try:
        configure(client_id="service", client_secret=SECRET, cache="keyring")
        first = ask(server)
        selection.forget()
        assert ask(server) == first
        assert [service for service, _ in Memory.kept] == ["mlflow-request-auth"]
    finally:
        keyring.set_keyring(before)
