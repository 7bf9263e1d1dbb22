"""No secret leaves for a log, a repr, an error or a traceback, whatever happens."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from pathlib import Path

import mlflow
import pytest
from real_oidc import SECRET, Browser, OidcProvider

from mlflow_plugkit_testing.recording import Answer, RecordingServer, redirect
from mlflow_request_auth import oauth2, selection
from mlflow_request_auth.login import browser_login, device_login
from mlflow_request_auth.settings import OAuth2Settings
from mlflow_request_auth.tokens import Token


class Shown:
    """Everything that a whole run shows, and the secrets that must not be in it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.secrets = {SECRET}

    def of(self, thing: object) -> None:
        self.texts.append(f"{thing!r} {thing!s}")
        if not isinstance(thing, Token):  # whose fields are the secrets themselves
            self.texts.append(repr(vars(thing)))

    def attempt(self, action: object) -> None:
        """Run an action that may fail, and look at how it fails."""
        try:
            action()  # type: ignore[operator]
        except Exception as exc:
            self.texts += ["".join(traceback.format_exception(exc)), repr(exc), str(exc.args)]

    def keep(self, *tokens: str | None) -> None:
        self.secrets.update(t for t in tokens if t)


@pytest.mark.parametrize("grant", ["client_credentials", "device_code", "authorization_code"])
def test_a_whole_run_at_debug(
    server: RecordingServer,
    service: OidcProvider,
    grant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Log in, ask, be refused, be redirected, lose the provider, log out: at DEBUG, for all loggers."""
    import threading

    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.DEBUG)
    shown = Shown()
    monkeypatch.setenv("MLFLOW_AUTH_CACHE", "file")
    if grant != "client_credentials":
        for name, value in {"CLIENT_ID": "laptop", "GRANT": grant, "SCOPE": "openid offline_access mlflow"}.items():
            monkeypatch.setenv(f"MLFLOW_AUTH_{name}", value)
        monkeypatch.delenv("MLFLOW_AUTH_CLIENT_SECRET")
    settings = OAuth2Settings.from_env()
    client = oauth2.OAuth2Client(settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def open_page(page: str) -> None:
            threading.Thread(target=Browser().open, args=(page,), daemon=True).start()

        def say(line: str) -> None:
            open_page(next(word for word in line.split() if word.startswith("http")))

        if grant == "device_code":
            oauth2.credential(settings).source.hold(device_login(client, say, sleep=lambda _: None))
        elif grant == "authorization_code":
            oauth2.credential(settings).source.hold(browser_login(client, open_page, wait=20))
        ask = mlflow.MlflowClient().search_experiments
        shown.attempt(ask)
        server.answer(Answer(401))
        shown.attempt(ask)
        server.answer(redirect(f"{server.other_host_uri}/elsewhere"))
        shown.attempt(ask)
        server.answer(Answer(401), Answer(401))
        shown.attempt(ask)
        server.answer(Answer(500), Answer(500))
        shown.attempt(ask)
        kept = oauth2.store_of(settings).load()
        assert kept is not None
        shown.keep(kept.access_token, kept.refresh_token)
        shown.keep(*(v.partition(" ")[2] for r in server.requests for v in r.values("Authorization")))
        auth = selection.auth_for("oauth2")
        credential = selection.credential_from("oauth2", os.environ)
        for thing in (settings, client, kept, auth, credential, credential.source, oauth2.store_of(settings)):  # type: ignore[attr-defined]
            shown.of(thing)
        shown.attempt(lambda: client.revoke(kept))
        monkeypatch.setenv("MLFLOW_AUTH_ISSUER", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_AUTH_PATIENCE", "0")
        shown.attempt(ask)
        monkeypatch.setenv("MLFLOW_AUTH_ISSUER", service.issuer)
        monkeypatch.setenv("MLFLOW_AUTH_CLIENT_SECRET", f"{SECRET}-but-wrong")
        shown.attempt(ask)
    assert len(shown.secrets) >= 3
    assert any("Error" in text or "Exception" in text for text in shown.texts), "nothing failed: the test shows nothing"
    text = "\n".join([*shown.texts, caplog.text, *capfd.readouterr(), *(str(w.message) for w in caught)])
    assert "POST" in caplog.text, "the HTTP client's own log was not seen"
    leaked = [number for number, secret in enumerate(sorted(shown.secrets)) if secret in text]
    assert not leaked, "a secret was shown"
