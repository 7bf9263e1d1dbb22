"""The command line `mlflow-auth`: login, status, token, logout, certificate.

It reads the same environment as the providers do. Imported for its commands only, never by MLflow.
"""

from __future__ import annotations

import json
import os
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mlflow_plugkit.errors import mlflow_error
from mlflow_request_auth.settings import NEEDS_LOGIN, OAuth2Settings

_HOST = click.option(
    "--host", help="With MLFLOW_TRACKING_AUTH=profiles: whose table; by default the tracking server's."
)


@contextmanager
def _sentences() -> Iterator[None]:
    """One sentence on stderr and exit status 1, in place of a traceback."""
    from mlflow.exceptions import MlflowException

    from mlflow_request_auth.source import Unavailable

    try:
        yield
    except MlflowException as exc:
        raise click.ClickException(exc.message) from None
    except Unavailable as exc:
        raise click.ClickException(f"The token provider does not answer: {exc}") from None


def _command(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _sentences():
            return function(*args, **kwargs)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-request-auth")
def main() -> None:
    """Credentials for MLflow's client: log in, look, log out. Configured by MLFLOW_AUTH_* variables."""


@main.command()
@_HOST
@click.option(
    "--device/--browser", default=None, help="The device flow, or a browser here. Default: MLFLOW_AUTH_GRANT."
)
@click.option("--no-open", is_flag=True, help="Print the address, and open no browser.")
@_command
def login(host: str | None, device: bool | None, no_open: bool) -> None:
    """Log in at the OAuth 2.0 provider and keep the token for training scripts."""
    from mlflow_request_auth.login import browser_login, device_login
    from mlflow_request_auth.oauth2 import OAuth2Client, store_of
    from mlflow_request_auth.source import TokenSource

    settings = _oauth2(host)
    if settings.grant not in NEEDS_LOGIN:
        raise mlflow_error(
            f"MLFLOW_AUTH_GRANT={settings.grant} needs no login. For one, set it to {' or '.join(NEEDS_LOGIN)}."
        )
    if settings.cache == "memory":
        raise mlflow_error("MLFLOW_AUTH_CACHE=memory cannot keep a login. Set it to file or keyring.")
    client = OAuth2Client(settings)
    store = store_of(settings)

    def show(page: str) -> None:
        click.echo(f"Open {page}", err=True)
        if not no_open:
            webbrowser.open(page)

    if settings.grant == "device_code" if device is None else device:
        token = device_login(client, lambda line: click.echo(line, err=True))
    else:
        token = browser_login(client, show)
    TokenSource(client.fetch, store, settings).hold(token)
    click.echo(f"Logged in{f' as {token.subject}' if token.subject else ''}; the token is kept {store.describe()}.")
    if not token.refresh_token:
        click.echo(
            "It cannot be renewed: the provider gave no refresh token (MLFLOW_AUTH_SCOPE=offline_access?).", err=True
        )


@main.command()
@_HOST
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_command
def status(host: str | None, as_json: bool) -> None:
    """Show whose token there is, how long it lasts and where it is kept. Never shows the token."""
    from mlflow_request_auth.oauth2 import store_of

    settings = _oauth2(host)
    store = store_of(settings)
    token = store.load()
    left = None if token is None or token.expires_at is None else token.seconds_left()
    facts: dict[str, Any] = {
        "issuer": settings.issuer or settings.token_url,
        "client_id": settings.client_id,
        "grant": settings.grant,
        "kept": store.describe(),
        "token": "none" if token is None else "expired" if left is not None and left <= 0 else "valid",
        "expires": None if token is None or token.expires_at is None else _moment(token.expires_at),
        "renewable": bool(token and token.refresh_token) or settings.grant not in NEEDS_LOGIN,
        "subject": token and token.subject,
        "scope": token and token.scope,
    }
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name:10} {value if value not in (None, '') else '-'}")
    if not facts["renewable"] and facts["token"] != "valid":  # noqa: S105 # a word, no token
        sys.exit(1)


@main.command()
@_HOST
@_command
def token(host: str | None) -> None:
    """Print a valid access token, for curl and the like. Whoever sees it can use it."""
    from mlflow_request_auth.bearer import BearerCredential
    from mlflow_request_auth.selection import credential_from

    name, variables = _selected(host)
    credential = credential_from(name, variables)
    if not isinstance(credential, BearerCredential):
        raise mlflow_error(f"The provider {name!r} gets no access tokens.")
    click.echo(credential.source.token().access_token)


@main.command()
@_HOST
@_command
def logout(host: str | None) -> None:
    """Revoke the kept token at the provider, and delete it here."""
    from mlflow.exceptions import MlflowException

    from mlflow_request_auth.oauth2 import OAuth2Client, store_of
    from mlflow_request_auth.source import Unavailable

    settings = _oauth2(host)
    store = store_of(settings)
    kept = store.load()
    if kept is None:
        click.echo(f"There is no token {store.describe()}.")
        return
    try:
        told = "revoked and " if OAuth2Client(settings).revoke(kept) else ""
    except (MlflowException, Unavailable) as exc:
        told = ""
        click.echo(f"It could not be revoked, and is valid until its end: {exc}", err=True)
    store.delete()
    click.echo(f"The token is {told}deleted.")


@main.command()
@click.option("--certificate", required=True, type=click.Path(path_type=Path), help="PEM with chain, or PKCS #12.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM, where it is not in the certificate's file.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="File with the key's passphrase.")
@click.option("--ask-passphrase", is_flag=True, help="Ask for the passphrase.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file to write, mode 0600.")
@_command
def certificate(
    certificate: Path, key: Path | None, passphrase_file: Path | None, ask_passphrase: bool, output: Path
) -> None:
    """Compose certificate and key into the one PEM file that MLFLOW_TRACKING_CLIENT_CERT_PATH takes."""
    from mlflow_request_auth.certificates import compose

    passphrase = None
    if passphrase_file:
        try:
            passphrase = passphrase_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise mlflow_error(f"The passphrase file {str(passphrase_file)!r} cannot be read.") from None
    elif ask_passphrase:
        passphrase = click.prompt("Passphrase", hide_input=True, err=True)
    found = compose(certificate, key, passphrase, output)
    until = found.not_valid_after_utc
    click.echo(
        f"Wrote {found.subject.rfc4514_string()}, valid until {until:%Y-%m-%d}. Its key is not encrypted there.",
        err=True,
    )
    click.echo(f"export MLFLOW_TRACKING_CLIENT_CERT_PATH={output.absolute()}")


def _selected(host: str | None) -> tuple[str, Any]:
    """The provider's name and the variables that configure it."""
    name = os.environ.get("MLFLOW_TRACKING_AUTH") or "oauth2"
    if name != "profiles":
        return name, os.environ
    from mlflow_request_auth.hosts import origin_of
    from mlflow_request_auth.profiles import Profiles
    from mlflow_request_auth.selection import profiles_path

    origin = origin_of(f"https://{host}" if host else os.environ.get("MLFLOW_TRACKING_URI", ""))
    if origin is None:
        raise mlflow_error("Say whose table: --host, or MLFLOW_TRACKING_URI.")
    profiles = Profiles.read(profiles_path())
    table = profiles.find(origin)
    if table is None:
        raise mlflow_error(f"{profiles.path} has no table for {origin.host}.")
    return profiles.hosts[table]


def _oauth2(host: str | None) -> OAuth2Settings:
    name, variables = _selected(host)
    if name != "oauth2":
        raise mlflow_error(f"MLFLOW_TRACKING_AUTH is {name!r}; only 'oauth2' has logins.")
    return OAuth2Settings.from_env(variables)


def _moment(timestamp: float) -> str:
    moment = datetime.fromtimestamp(timestamp, timezone.utc)
    left = int(timestamp - time.time())
    return f"{moment:%Y-%m-%dT%H:%M:%SZ} ({'in' if left >= 0 else 'was'} {abs(left)} s{' ago' if left < 0 else ''})"


if __name__ == "__main__":
    main()
