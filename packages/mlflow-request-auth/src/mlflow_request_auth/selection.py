"""From a provider's name and the environment to the credential for a host."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings
from mlflow_request_auth.auth import Credential, HostBoundAuth
from mlflow_request_auth.hosts import Origin, is_listed, origin_of, tracking_origins
from mlflow_request_auth.settings import (
    ApiKeySettings,
    CommandSettings,
    KerberosSettings,
    OAuth2Settings,
    SendingSettings,
    TokenFileSettings,
    file_state,
    fingerprint,
)

PROVIDERS: Mapping[str, tuple[type[Settings], str]] = {
    "oauth2": (OAuth2Settings, "oauth2:credential"),
    "api-key": (ApiKeySettings, "static:ApiKeyCredential"),
    "token-file": (TokenFileSettings, "static:TokenFileCredential"),
    "command": (CommandSettings, "command:credential"),
    "kerberos": (KerberosSettings, "kerberos:KerberosCredential"),
}
"""For each provider its settings, and what makes a credential of them."""
PROFILES = "profiles"

_made: dict[str, tuple[tuple[object, ...], HostBoundAuth]] = {}
_lock = threading.Lock()


def auth_for(name: str) -> HostBoundAuth:
    """The auth object of a provider; one for the process, until what it depends on changes.

    Raises:
        MlflowException: the settings are missing or wrong.
    """
    state = _state(name)
    made = _made.get(name)
    if made is not None and made[0] == state:
        return made[1]
    with _lock:
        made = _made.get(name)
        if made is None or made[0] != state:
            made = _made[name] = (state, _make(name))
    return made[1]


def _state(name: str) -> tuple[object, ...]:
    """What the auth object of a provider depends on; cheap, as MLflow asks for each request."""
    if name == PROFILES:
        path = str(profiles_path())
        return (*fingerprint(SendingSettings), path, file_state(path))
    return (*fingerprint(SendingSettings), *fingerprint(PROVIDERS[name][0]))


def profiles_path() -> Path:
    """The profiles file: MLFLOW_AUTH_PROFILES, or `profiles.toml` in the user's configuration folder."""
    if named := os.environ.get("MLFLOW_AUTH_PROFILES"):
        return Path(named)
    from platformdirs import user_config_path

    return user_config_path("mlflow-request-auth", appauthor=False) / "profiles.toml"


def _make(name: str) -> HostBoundAuth:
    sending = SendingSettings.from_env()
    if name == PROFILES:
        from mlflow_request_auth.profiles import Profiles

        profiles = Profiles.read(profiles_path())

        def by_host(origin: Origin | None) -> Credential | None:
            found = profiles.credential(_known(origin))
            if found is not None:
                _check_private(_known(origin), sending)
            return found

        return HostBoundAuth(by_host)
    credential = credential_from(name, os.environ)

    def for_tracking(origin: Origin | None) -> Credential:
        _check_admitted(_known(origin), sending, name)
        _check_private(_known(origin), sending)
        return credential

    return HostBoundAuth(for_tracking)


def credential_from(name: str, environ: Mapping[str, str]) -> Credential:
    """The credential of a provider with the settings of `environ`.

    Raises:
        MlflowException: the settings are missing or wrong; the message begins with the provider.
    """
    from mlflow.exceptions import MlflowException

    settings_class, maker = PROVIDERS[name]
    module, _, attribute = maker.partition(":")
    try:
        settings = settings_class.from_env(environ)
        make = getattr(import_module(f"mlflow_request_auth.{module}"), attribute)
        return cast("Credential", make(settings))
    except MlflowException as exc:
        raise mlflow_error(f"The auth provider {name!r} cannot be used. {exc.message}", exc.error_code) from None


def _known(origin: Origin | None) -> Origin:
    if origin is None:
        raise mlflow_error("The request has no http or https URL, so that no credentials can be sent with it.")
    return origin


def _check_admitted(origin: Origin, sending: SendingSettings, name: str) -> None:
    """Refuse hosts that the user has not named: a tracking server may name any as an artifact location."""
    if origin in tracking_origins() or is_listed(origin, sending.allowed_hosts) or origin in _current_origins():
        return
    raise mlflow_error(
        f"MLFLOW_TRACKING_AUTH={name} sends its credentials to the servers of MLFLOW_TRACKING_URI and "
        f"MLFLOW_REGISTRY_URI only, and this request goes to {origin}; it was not sent. If that server is yours, add "
        f"'{origin.host}:{origin.port}' to MLFLOW_AUTH_ALLOWED_HOSTS.",
        "PERMISSION_DENIED",
    )


def _current_origins() -> tuple[Origin | None, ...]:
    """The servers that this process set with `mlflow.set_tracking_uri`, where the variables were changed since."""
    import mlflow

    return origin_of(mlflow.get_tracking_uri()), origin_of(mlflow.get_registry_uri())


def _check_private(origin: Origin, sending: SendingSettings) -> None:
    if origin.is_private or sending.allow_http:
        return
    raise mlflow_error(
        f"Credentials sent to {origin} over plain http could be read on their way; the request was not sent. Use "
        "https, or set MLFLOW_AUTH_ALLOW_HTTP=true if the network is trusted.",
        "PERMISSION_DENIED",
    )


def forget() -> None:
    """Drop all credentials of this process, as after a logout."""
    with _lock:
        _made.clear()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
