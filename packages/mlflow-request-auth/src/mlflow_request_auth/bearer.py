"""The credential of a `TokenSource`, and the store that its settings ask for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mlflow_request_auth.hosts import Origin
from mlflow_request_auth.settings import TokenSettings
from mlflow_request_auth.source import TokenSource
from mlflow_request_auth.store import FileStore, KeyringStore, MemoryStore, TokenStore, default_folder


class BearerCredential:
    """`Authorization: Bearer ...` (RFC 6750) with a token that is renewed before its end."""

    header = "Authorization"

    def __init__(self, source: TokenSource) -> None:
        self.source = source

    def value(self, origin: Origin, *, resendable: bool) -> str:
        return f"Bearer {self.source.token(resendable=resendable).access_token}"

    def replacement(self, origin: Origin, refused: str) -> str | None:
        token = self.source.replace(refused.removeprefix("Bearer "))
        return f"Bearer {token.access_token}" if token else None

    def accepted(self) -> None:
        self.source.accepted()


def store_for(settings: TokenSettings, identity: tuple[str | None, ...], *, outlives_process: bool) -> TokenStore:
    """The store of one identity.

    Args:
        settings: which kind, and where.
        identity: what tells this token from others: provider, client, scope. No secret in clear: it
            becomes a file's name by way of a hash.
        outlives_process: what `cache=auto` means.
    """
    kind = settings.cache
    if kind == "auto":
        kind = "file" if outlives_process else "memory"
    if kind == "memory":
        return MemoryStore()
    folder = Path(settings.cache_dir).expanduser() if settings.cache_dir else default_folder()
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    return FileStore(folder, key) if kind == "file" else KeyringStore(folder, key)
