"""What the entry points name: the standard library only, until a provider is asked for.

MLflow loads these classes when it makes its first HTTP request and makes one instance of each.
`__getattr__` imports a class when its entry point is loaded (PEP 562); authlib, the token stores and
Kerberos are imported when the selected provider handles its first request.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_CLASSES = frozenset(
    {
        "OAuth2Provider",
        "ApiKeyProvider",
        "TokenFileProvider",
        "CommandProvider",
        "KerberosProvider",
        "ProfilesProvider",
        "UnknownNameProvider",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("mlflow_request_auth.providers"), name)
