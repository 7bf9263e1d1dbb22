"""The command line `mlflow-auth`."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
import trustme
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from real_oidc import Browser, OidcProvider

from mlflow_plugkit_testing.recording import RecordingServer
from mlflow_plugkit_testing.server import plugin_env
from mlflow_request_auth import login as login_module
from mlflow_request_auth.cli import main

PASSPHRASE = "the key's passphrase"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def laptop(oidc: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> OidcProvider:
    for name, value in {
        "ISSUER": oidc.issuer, "CLIENT_ID": "laptop", "GRANT": "device_code", "SCOPE": "openid offline_access mlflow",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"MLFLOW_AUTH_{name}", value)
    return oidc


def test_login_status_token_logout(
    laptop: OidcProvider, server: RecordingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole life of a login, as a process of its own; only `token` prints the token."""
    assert run("status").exit_code == 1
    env = plugin_env()
    program = shutil.which("mlflow-auth", path=str(Path(sys.executable).parent))
    assert program, "the wheel installs the program mlflow-auth"
    process = subprocess.Popen([program, "login"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        asked = process.stderr.readline()
        Browser().confirm_device(next(word for word in asked.split() if word.startswith("http")))
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 0, err
    assert "Logged in as ada" in out

    facts = json.loads(run("status", "--json").output)
    assert (facts["token"], facts["subject"], facts["renewable"]) == ("valid", "ada", True)
    assert str(tmp_path / "tokens") in facts["kept"]
    shown = run("status").output
    assert "ada" in shown
    token = run("token").output.strip()
    assert laptop.is_active(token)
    (file,) = (tmp_path / "tokens").glob("*.json")
    kept = json.loads(file.read_text())
    for text in (out, err, asked, shown, json.dumps(facts)):
        assert token not in text
        assert kept["refresh_token"] not in text

    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "oauth2")
    mlflow.MlflowClient().search_experiments()
    assert server.requests[-1].values("Authorization") == [f"Bearer {token}"]

    assert "revoked and deleted" in run("logout").output
    assert not laptop.is_active(kept["refresh_token"])
    assert not file.exists()
    assert "There is no token" in run("logout").output


def test_login_in_a_browser(laptop: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_page(page: str) -> bool:
        opened.append(page)
        threading.Thread(target=Browser("grace").open, args=(page,), daemon=True).start()
        return True

    monkeypatch.setattr("webbrowser.open", open_page)
    result = run("login", "--browser")
    assert result.exit_code == 0, result.output
    assert "Logged in as grace" in result.output
    assert len(opened) == 1


def test_logout_without_the_provider_still_deletes(
    laptop: OidcProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow_request_auth import oauth2
    from mlflow_request_auth.settings import OAuth2Settings
    from mlflow_request_auth.tokens import Token

    monkeypatch.setenv("MLFLOW_AUTH_ISSUER", "http://127.0.0.1:9")
    store = oauth2.store_of(OAuth2Settings.from_env())
    store_folder = tmp_path / "tokens"
    store_folder.mkdir(mode=0o700)
    store.save(Token("an-access-token", refresh_token="a-refresh-token"))
    result = run("logout")
    assert result.exit_code == 0
    assert "could not be revoked" in result.output
    assert store.load() is None


@pytest.mark.parametrize(
    ("command", "variables", "message"),
    [
        (["login"], {"GRANT": "client_credentials"}, "needs no login"),
        (["login"], {"CACHE": "memory"}, "cannot keep a login"),
        (["login"], {"ISSUER": "http://example.com"}, "MLFLOW_AUTH_ISSUER_ALLOW_HTTP"),
        (["login"], {"ISSUER": "http://127.0.0.1:9"}, "does not answer"),
        (["status"], {"GRANT": "devise_code"}, "MLFLOW_AUTH_GRANT"),
        (["token"], {}, "mlflow-auth login"),
    ],
)
def test_errors_are_one_sentence(
    laptop: OidcProvider, monkeypatch: pytest.MonkeyPatch, command: list[str], variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_AUTH_{name}", value)
    result = run(*command)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.strip().splitlines()) == 1


def test_profiles_say_whose_login(laptop: OidcProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(
        f'[hosts."mlflow.example.com"]\nauth = "oauth2"\nissuer = "{laptop.issuer}"\nclient_id = "laptop"\n'
        f'grant = "device_code"\ncache_dir = "{tmp_path / "tokens"}"\n'
    )
    monkeypatch.setenv("MLFLOW_AUTH_PROFILES", str(tmp_path / "profiles.toml"))
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "profiles")
    assert "--host" in run("status").output
    assert "laptop" in run("status", "--host", "mlflow.example.com").output
    assert "no table" in run("status", "--host", "other.example.com").output


class Authority:
    """A client certificate of a private authority, and its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.client = self.ca.issue_cert("training.example")
        self.key = serialization.load_pem_private_key(self.client.private_key_pem.bytes(), None)
        self.certificate = x509.load_pem_x509_certificate(self.client.cert_chain_pems[0].bytes())
        self.client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
        (folder / "client.key").write_bytes(
            self.key.private_bytes(  # type: ignore[union-attr]
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(PASSPHRASE.encode()),
            )
        )
        (folder / "client.p12").write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"client", self.key, self.certificate, None,  # type: ignore[arg-type]
                serialization.BestAvailableEncryption(PASSPHRASE.encode()),
            )
        )  # fmt: skip
        (folder / "passphrase").write_text(f"{PASSPHRASE}\n")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("form", ["pem", "p12"])
def test_a_composed_certificate_lets_mlflow_in(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A server that asks for a client certificate, MLflow's own client, and the one file in between."""
    given = ["--certificate", str(tmp_path / f"client.{form}"), "--passphrase-file", str(tmp_path / "passphrase")]
    if form == "pem":
        given += ["--key", str(tmp_path / "client.key")]
    result = run("certificate", *given, "--output", str(tmp_path / "mlflow.pem"))
    assert result.exit_code == 0, result.output
    assert f"MLFLOW_TRACKING_CLIENT_CERT_PATH={tmp_path / 'mlflow.pem'}" in result.output
    assert PASSPHRASE not in result.output
    assert oct((tmp_path / "mlflow.pem").stat().st_mode)[-3:] == "600"

    own = authority.ca.issue_cert("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.configure_cert(context)
    authority.ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    seen: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.connection.getpeercert()["subjectAltName"])  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            authority.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://127.0.0.1:{http.server_address[1]}")
            monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "ca.pem"))
            monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(tmp_path / "mlflow.pem"))
            mlflow.MlflowClient().search_experiments()
        finally:
            http.shutdown()
    assert seen == [(("DNS", "training.example"),)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--passphrase-file", "wrong"], "passphrase is another one"),
        ([], "is encrypted: give its passphrase"),
        (["--key", "missing.key"], "cannot be read"),
        (["--certificate", "passphrase"], "holds no certificate"),
        (["--key", "other.key", "--passphrase-file", "none"], "passphrase file"),
        (["--key", "other.key"], "does not belong"),
    ],
)
def test_a_certificate_that_cannot_be_composed(
    authority: Authority, tmp_path: Path, change: list[str], message: str
) -> None:
    (tmp_path / "wrong").write_text("another passphrase")
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(tmp_path / "other.key"))
    given = {"--certificate": "client.pem", "--key": "client.key", "--output": "out.pem"}
    given |= dict(zip(change[::2], change[1::2], strict=True))
    if given["--certificate"] == "passphrase":
        given |= {"--key": "other.key"}
    result = run("certificate", *(part for name, file in given.items() for part in (name, str(tmp_path / file))))
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "out.pem").exists()


def test_help_says_what_there_is() -> None:
    listed = run("--help").output
    assert all(word in listed for word in ("login", "status", "token", "logout", "certificate"))
    assert login_module.LOGIN_SECONDS == 300
