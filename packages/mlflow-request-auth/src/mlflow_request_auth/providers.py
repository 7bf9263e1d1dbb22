"""The providers: what `MLFLOW_TRACKING_AUTH` selects. Constructed by MLflow without arguments; nothing is read then."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any, ClassVar

from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider

from mlflow_plugkit.errors import mlflow_error

if TYPE_CHECKING:
    from mlflow_request_auth.auth import HostBoundAuth

VARIABLE = "MLFLOW_TRACKING_AUTH"


class _Provider(RequestAuthProvider):
    """Makes the auth object once for each state of the environment; MLflow asks for it at every request."""

    name: ClassVar[str] = ""

    def get_name(self) -> str:
        """The value of MLFLOW_TRACKING_AUTH that selects this provider."""
        return self.name

    def get_auth(self) -> HostBoundAuth:
        """The auth object for requests; the same one until the environment changes.

        Raises:
            MlflowException: the settings are missing or wrong; the request is not sent.
        """
        from mlflow_request_auth.selection import auth_for

        return auth_for(self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class OAuth2Provider(_Provider):
    """`MLFLOW_TRACKING_AUTH=oauth2`: access tokens from an OAuth 2.0 or OpenID Connect provider."""

    name = "oauth2"


class ApiKeyProvider(_Provider):
    """`MLFLOW_TRACKING_AUTH=api-key`: a fixed key in a header of choice."""

    name = "api-key"


class TokenFileProvider(_Provider):
    """`MLFLOW_TRACKING_AUTH=token-file`: a bearer token from a file that somebody else keeps fresh."""

    name = "token-file"


class CommandProvider(_Provider):
    """`MLFLOW_TRACKING_AUTH=command`: a bearer token that a program prints."""

    name = "command"


class KerberosProvider(_Provider):
    """`MLFLOW_TRACKING_AUTH=kerberos`: SPNEGO with a Kerberos ticket (RFC 4559)."""

    name = "kerberos"


class ProfilesProvider(_Provider):
    """`MLFLOW_TRACKING_AUTH=profiles`: another provider for each host, from a TOML file."""

    name = "profiles"


class UnknownNameProvider(RequestAuthProvider):
    """Stops requests whose MLFLOW_TRACKING_AUTH names no provider; MLflow alone would send them without credentials.

    It answers to a name that no other provider in MLflow's registry claims, and to no name otherwise.
    """

    def get_name(self) -> str:
        wanted = os.environ.get(VARIABLE, "")
        return wanted if wanted and wanted not in _names() else "mlflow-request-auth: no provider"

    def get_auth(self) -> Any:
        wanted = os.environ.get(VARIABLE, "")
        known = sorted(_names())
        near = difflib.get_close_matches(wanted.strip().lower(), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(map(repr, known))}."
        raise mlflow_error(
            f"{VARIABLE} is {wanted!a}, and no installed plugin provides that; the request was not sent. {hint}"
        )


def _names() -> set[str]:
    from mlflow.tracking.request_auth.registry import _request_auth_provider_registry as registry

    return {str(p.get_name()) for p in registry if not isinstance(p, UnknownNameProvider)}
