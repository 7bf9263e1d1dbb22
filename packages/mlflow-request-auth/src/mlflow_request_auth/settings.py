"""Settings: the environment, or one table of the profiles file, becomes one frozen dataclass for each provider."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, declared_options, option

Grant = Literal[
    "client_credentials", "device_code", "authorization_code", "refresh_token", "token_exchange", "jwt_bearer"
]
ClientAuth = Literal[
    "auto", "none", "client_secret_basic", "client_secret_post", "private_key_jwt", "client_assertion_file",
    "tls_client_auth",
]  # fmt: skip
NEEDS_LOGIN = ("device_code", "authorization_code")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1: token
_HOP_BY_HOP = {"connection", "content-length", "cookie", "host", "te", "trailer", "transfer-encoding", "upgrade"}


@dataclass(frozen=True, kw_only=True)
class SendingSettings(Settings):
    """Where credentials may go; these hold for every provider."""

    allowed_hosts: tuple[str, ...] = option(
        (),
        in_uri=False,
        env="MLFLOW_AUTH_ALLOWED_HOSTS",
        help="Further hosts (`host` or `host:port`) that may receive the credentials, beside those of "
        "`MLFLOW_TRACKING_URI` and `MLFLOW_REGISTRY_URI`.",
    )
    allow_http: bool = option(
        False,
        in_uri=False,
        env="MLFLOW_AUTH_ALLOW_HTTP",
        help="Send credentials over plain `http://` to hosts other than this machine, where anybody on the way can "
        "read them.",
    )
    profiles: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_PROFILES",
        help="The TOML file of the provider `profiles`; by default `profiles.toml` in the user's configuration folder.",
    )


@dataclass(frozen=True, kw_only=True)
class TokenSettings(Settings):
    """How tokens are kept and renewed: the providers `oauth2` and `command`."""

    cache: Literal["auto", "memory", "file", "keyring"] = option(
        "auto",
        in_uri=False,
        env="MLFLOW_AUTH_CACHE",
        help="Where tokens are kept. `auto` means `file` where a refresh token must outlive the process "
        "(`device_code`, `authorization_code`, `refresh_token`), else `memory`.",
    )
    cache_dir: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_CACHE_DIR",
        help="Folder of the token files and locks; by default the user's state folder. It must be the user's own.",
    )
    refresh_ahead: float = option(
        60.0,
        in_uri=False,
        env="MLFLOW_AUTH_REFRESH_AHEAD",
        help="Seconds before its end at which a token is renewed, but at most 30 % of its life.",
    )
    clock_skew: float = option(
        5.0,
        in_uri=False,
        env="MLFLOW_AUTH_CLOCK_SKEW",
        help="Seconds before its end from which a token is not sent any more, but at most 10 % of its life.",
    )
    patience: float = option(
        90.0,
        in_uri=False,
        env="MLFLOW_AUTH_PATIENCE",
        help="Seconds for which a request waits, with growing pauses, for a token provider that is down when there is "
        "no valid token left.",
    )
    timeout: float = option(
        10.0, in_uri=False, env="MLFLOW_AUTH_TIMEOUT", help="Seconds for one answer of the token provider or command."
    )

    def __post_init__(self) -> None:
        for name in ("refresh_ahead", "clock_skew", "patience"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise mlflow_error(f"MLFLOW_AUTH_{name.upper()} is {getattr(self, name)}. Give seconds, 0 or more.")
        if not 0 < self.timeout < float("inf"):
            raise mlflow_error(f"MLFLOW_AUTH_TIMEOUT is {self.timeout}. Give seconds, more than 0.")


@dataclass(frozen=True, kw_only=True)
class OAuth2Settings(TokenSettings):
    """The provider `oauth2`."""

    issuer: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_ISSUER",
        help="The provider's issuer URL; its endpoints are discovered from it (OpenID Connect Discovery, RFC 8414).",
    )
    token_url: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_TOKEN_URL", help="The token endpoint, where it cannot be discovered."
    )
    device_url: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_DEVICE_URL", help="The device authorization endpoint, likewise."
    )
    authorization_url: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_AUTHORIZATION_URL", help="The authorization endpoint, likewise."
    )
    revocation_url: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_REVOCATION_URL", help="The revocation endpoint, likewise."
    )
    grant: Grant = option(
        "client_credentials", in_uri=False, env="MLFLOW_AUTH_GRANT", help="How a token is obtained: see the table."
    )
    client_id: str = option(in_uri=False, env="MLFLOW_AUTH_CLIENT_ID", help="The client's id at the provider.")
    client_secret: SecretStr | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_CLIENT_SECRET", help="The client's secret."
    )
    client_auth: ClientAuth = option(
        "auto",
        in_uri=False,
        env="MLFLOW_AUTH_CLIENT_AUTH",
        help="How the client proves who it is. `auto`: by the secret (`client_secret_basic`), the assertion file or "
        "the key that is given, else `none`.",
    )
    client_certificate_path: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_CLIENT_CERTIFICATE", help="PEM file of the client's certificate."
    )
    client_key_path: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_CLIENT_KEY",
        help="PEM file of the client's private key, where it is not in the certificate's file.",
    )
    client_key_passphrase: SecretStr | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_CLIENT_KEY_PASSPHRASE", help="The private key's passphrase."
    )
    client_key_id: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_CLIENT_KEY_ID", help="The `kid` under which the provider knows the key."
    )
    client_assertion_file: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_CLIENT_ASSERTION_FILE",
        help="File with a signed JWT that proves the client's identity, such as a projected service-account token; "
        "read anew for each token (RFC 7523).",
    )
    assertion_audience: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_ASSERTION_AUDIENCE",
        help="The `aud` of the assertion that `private_key_jwt` signs; by default the token endpoint.",
    )
    refresh_token: SecretStr | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_REFRESH_TOKEN",
        help="The first refresh token of the grant `refresh_token`.",
    )
    subject_token_file: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_SUBJECT_TOKEN_FILE",
        help="File with the token that `token_exchange` exchanges or `jwt_bearer` presents; read anew for each token.",
    )
    subject_type: str = option(
        "urn:ietf:params:oauth:token-type:jwt",
        in_uri=False,
        env="MLFLOW_AUTH_SUBJECT_TOKEN_TYPE",
        help="What that token is (RFC 8693, section 3).",
    )
    scope: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_SCOPE", help="Scopes to ask for, separated by blanks."
    )
    audience: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_AUDIENCE", help="Sent as `audience` to the token endpoint."
    )
    resource: str | None = option(
        None, in_uri=False, env="MLFLOW_AUTH_RESOURCE", help="The resource indicator to ask for (RFC 8707)."
    )
    redirect_port: int = option(
        0,
        in_uri=False,
        env="MLFLOW_AUTH_REDIRECT_PORT",
        help="Loopback port that receives the authorization code; 0 takes a free one.",
    )
    ca_bundle: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_CA_BUNDLE",
        help="PEM file of the authorities that the provider's certificate is checked against.",
    )
    issuer_allow_http: bool = option(
        False,
        in_uri=False,
        env="MLFLOW_AUTH_ISSUER_ALLOW_HTTP",
        help="Talk to the token provider over plain `http://` on other hosts than this machine.",
    )

    @property
    def client_auth_method(self) -> str:
        """The client authentication method with `auto` resolved."""
        if self.client_auth != "auto":
            return self.client_auth
        if self.client_secret:
            return "client_secret_basic"
        if self.client_assertion_file:
            return "client_assertion_file"
        return "private_key_jwt" if self.client_key_path or self.client_certificate_path else "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.issuer and not self.token_url:
            raise mlflow_error("Set MLFLOW_AUTH_ISSUER to the provider's issuer URL, or MLFLOW_AUTH_TOKEN_URL.")
        for variable, needed in self._needs():
            if not needed:
                raise mlflow_error(f"Set {variable}: MLFLOW_AUTH_GRANT={self.grant} with the client authentication "
                                   f"{self.client_auth_method!r} needs it.")  # fmt: skip

    def _needs(self) -> list[tuple[str, object]]:
        needs: dict[str, list[tuple[str, object]]] = {
            "client_secret_basic": [("MLFLOW_AUTH_CLIENT_SECRET", self.client_secret)],
            "client_secret_post": [("MLFLOW_AUTH_CLIENT_SECRET", self.client_secret)],
            "private_key_jwt": [("MLFLOW_AUTH_CLIENT_KEY", self.client_key_path or self.client_certificate_path)],
            "tls_client_auth": [("MLFLOW_AUTH_CLIENT_CERTIFICATE", self.client_certificate_path)],
            "client_assertion_file": [("MLFLOW_AUTH_CLIENT_ASSERTION_FILE", self.client_assertion_file)],
            "refresh_token": [("MLFLOW_AUTH_REFRESH_TOKEN", self.refresh_token)],
            "token_exchange": [("MLFLOW_AUTH_SUBJECT_TOKEN_FILE", self.subject_token_file)],
            "jwt_bearer": [("MLFLOW_AUTH_SUBJECT_TOKEN_FILE", self.subject_token_file)],
        }
        return needs.get(self.client_auth_method, []) + needs.get(self.grant, [])


@dataclass(frozen=True, kw_only=True)
class ApiKeySettings(Settings):
    """The provider `api-key`."""

    api_key: SecretStr = option(in_uri=False, env="MLFLOW_AUTH_API_KEY", help="The key.")
    header_name: str = option(
        "X-API-Key", in_uri=False, env="MLFLOW_AUTH_API_KEY_HEADER", help="The request header that carries the key."
    )
    header_prefix: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_API_KEY_PREFIX",
        help="Put before the key and one blank, such as `Bearer` or `ApiKey`.",
    )

    def __post_init__(self) -> None:
        name = self.header_name
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _HOP_BY_HOP:
            raise mlflow_error(f"MLFLOW_AUTH_API_KEY_HEADER is {name!a}. Name a header such as X-API-Key.")
        check_header_value(self.value, "MLFLOW_AUTH_API_KEY (with MLFLOW_AUTH_API_KEY_PREFIX)")

    @property
    def value(self) -> str:
        """What the header holds."""
        return f"{(self.header_prefix or '').strip()} {self.api_key.get_secret_value().strip()}".strip()


@dataclass(frozen=True, kw_only=True)
class TokenFileSettings(Settings):
    """The provider `token-file`."""

    token_file: str = option(
        in_uri=False,
        env="MLFLOW_AUTH_TOKEN_FILE",
        help="The file that holds the bearer token; read again whenever it changes.",
    )


@dataclass(frozen=True, kw_only=True)
class CommandSettings(TokenSettings):
    """The provider `command`."""

    command: str = option(
        in_uri=False,
        env="MLFLOW_AUTH_COMMAND",
        help="The program that prints the token, with its arguments as a shell would split them. No shell runs it.",
    )
    command_ttl: float = option(
        300.0,
        in_uri=False,
        env="MLFLOW_AUTH_COMMAND_TTL",
        help="Seconds for which a token is used whose end is neither printed with it nor in it (as in a JWT); 0 uses "
        "it until the server refuses it.",
    )


@dataclass(frozen=True, kw_only=True)
class KerberosSettings(Settings):
    """The provider `kerberos`."""

    kerberos_service: str = option(
        "HTTP", in_uri=False, env="MLFLOW_AUTH_KERBEROS_SERVICE", help="The service part of the server's principal."
    )
    kerberos_host: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_KERBEROS_HOST",
        help="The host part of the server's principal, where it is not the host of the URL.",
    )
    kerberos_principal: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_KERBEROS_PRINCIPAL",
        help="The client's principal; by default that of the credential cache.",
    )
    kerberos_keytab_path: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_AUTH_KERBEROS_KEYTAB",
        help="Client keytab from which tickets are got and renewed without `kinit`.",
    )


def check_header_value(value: str, what: str) -> str:
    """Return a header's value that can be sent as it is (RFC 9110, 5.5).

    Raises:
        MlflowException: it is empty or holds line breaks, control characters or other than Latin-1. The
            message does not show the value.
    """
    if not value.strip():
        raise mlflow_error(f"{what} is empty.", "UNAUTHENTICATED")
    if any(ord(c) < 32 or ord(c) == 127 or ord(c) > 255 for c in value):
        raise mlflow_error(f"{what} holds a line break or another character that an HTTP header cannot carry.")
    return value


@cache
def _variables(cls: Any) -> tuple[tuple[str, bool], ...]:
    return tuple((name, o.secret) for o in declared_options(cls).values() for name in o.env)


def fingerprint(cls: type[Settings], environ: Mapping[str, str] | None = None) -> tuple[object, ...]:
    """What the settings depend on, cheap enough for each request: the variables, and the state of `*_FILE` files."""
    environ = os.environ if environ is None else environ
    seen: list[object] = []
    for name, secret in _variables(cast("Any", cls)):
        seen.append(environ.get(name))
        if secret and (path := environ.get(f"{name}_FILE")):
            seen.append((path, file_state(path)))
    return tuple(seen)


def file_state(path: str) -> tuple[int, int, int] | None:
    """Changes whenever the file is replaced or written; None where it cannot be seen. Follows symbolic links."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
