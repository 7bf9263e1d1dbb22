"""Several servers with different credentials: a TOML file with one table for each host.

[hosts."mlflow.example.com"]
auth = "oauth2"
issuer = "https://login.example.com"
client_id = "training"
client_secret_file = "/run/secrets/training"

[hosts."public.example.com"]
auth = "none"
"""

from __future__ import annotations

import difflib
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, declared_options
from mlflow_request_auth.auth import Credential
from mlflow_request_auth.hosts import Origin, matches, origin_of
from mlflow_request_auth.selection import PROVIDERS, credential_from

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_lock = threading.Lock()


class Profiles:
    """The tables of a profiles file. A host's credential is made when its first request comes.

    Args:
        path: the file, for messages.
        hosts: provider name and variables by host.
    """

    def __init__(self, path: Path, hosts: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
        self.path = path
        self.hosts = hosts
        self._made: dict[str, Credential] = {}

    @classmethod
    def read(cls, path: Path) -> Profiles:
        """Read and check the whole file.

        Raises:
            MlflowException: it cannot be read, or a table is wrong; the message names it.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise mlflow_error(
                f"The profiles file {str(path)!r} cannot be read: {exc.strerror}. Name one in MLFLOW_AUTH_PROFILES."
            ) from None
        except ValueError as exc:
            raise mlflow_error(f"The profiles file {str(path)!r} is no TOML: {exc}.") from None
        hosts = data.get("hosts")
        if not isinstance(hosts, dict) or set(data) != {"hosts"}:
            raise mlflow_error(f'{str(path)!r} must hold tables [hosts."host"], and nothing else.')
        return cls(path, {host: _table(path, host, table) for host, table in hosts.items()})

    def find(self, origin: Origin) -> str | None:
        """The table for an origin; one with a port wins over one without."""
        found = [host for host in self.hosts if matches(origin, host)]
        return max(found, key=len, default=None)

    def credential(self, origin: Origin) -> Credential | None:
        """The credential for an origin; None where its table says `auth = "none"`.

        Raises:
            MlflowException: the file has no table for the host, or its settings are wrong.
        """
        host = self.find(origin)
        if host is None:
            raise mlflow_error(
                f"The profiles file {str(self.path)!r} has no table for {origin}; the request was not sent. Add "
                f'[hosts."{origin.host}"], with the provider "none" if the server wants no credentials.',
                "PERMISSION_DENIED",
            )
        name, variables = self.hosts[host]
        if name == "none":
            return None
        made = self._made.get(host)
        if made is None:
            with _lock:
                made = self._made.get(host) or credential_from(name, variables)
                self._made[host] = made
        return made


def _table(path: Path, host: str, table: Any) -> tuple[str, dict[str, str]]:
    place = f'{path}, [hosts."{host}"]'
    if origin_of(f"https://{host}") is None or any(c in host for c in "/@*"):
        raise mlflow_error(f"{place}: write the host as `host` or `host:port`.")
    if not isinstance(table, dict) or not isinstance(table.get("auth"), str):
        raise mlflow_error(
            f"{place}: its key `auth` must name a provider; there are {', '.join([*PROVIDERS, 'none'])}."
        )
    name = table["auth"]
    if name == "none":
        return name, {}
    if name not in PROVIDERS:
        raise mlflow_error(f"{place}: {_unknown('provider', name, [*PROVIDERS, 'none'])}")
    names = _variables(PROVIDERS[name][0])
    variables: dict[str, str] = {}
    for key, value in table.items():
        if key == "auth":
            continue
        if key not in names:
            secret = f" A secret does not belong into this file: give {key}_file." if f"{key}_file" in names else ""
            raise mlflow_error(f"{place}: {secret.strip() or _unknown('option', key, list(names))}")
        variables[names[key]] = _text(value)
    return name, variables


def _variables(cls: type[Settings]) -> dict[str, str]:
    """The environment variable that each key stands for; secrets can only be given as files."""
    names = (f"{o.env[0]}_FILE" if o.secret else o.env[0] for o in declared_options(cls).values())
    return {name.removeprefix("MLFLOW_AUTH_").lower(): name for name in names}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no {what} {name!r}. " + (f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}.")


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
