"""What the environment configures: URIs, credentials, the netrc file. Nothing here leaves the process unredacted."""

from __future__ import annotations

import difflib
import netrc
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_plugkit.doctor.groups import DATABASE_ENGINES
from mlflow_plugkit.uri import redact_text

TRACKING, REGISTRY, ARTIFACT = "tracking", "registry", "artifact"

# Variables that MLflow's client, its `server` command and its server's workers read a URI from.
URI_VARIABLES = {
    "MLFLOW_TRACKING_URI": TRACKING,
    "MLFLOW_BACKEND_STORE_URI": TRACKING,
    "_MLFLOW_SERVER_FILE_STORE": TRACKING,
    "MLFLOW_REGISTRY_URI": REGISTRY,
    "MLFLOW_REGISTRY_STORE_URI": REGISTRY,
    "_MLFLOW_SERVER_REGISTRY_STORE": REGISTRY,
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": ARTIFACT,
    "MLFLOW_ARTIFACTS_DESTINATION": ARTIFACT,
    "_MLFLOW_SERVER_ARTIFACT_ROOT": ARTIFACT,
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": ARTIFACT,
}
GROUP_OF_KIND = {
    TRACKING: "mlflow.tracking_store",
    REGISTRY: "mlflow.model_registry_store",
    ARTIFACT: "mlflow.artifact_repository",
}
_ANY_URI = re.compile(r"_?MLFLOW_\w*URI\w*|_MLFLOW_SERVER_\w+")
_SECRET_NAME = re.compile(
    r"PASSW(OR)?D|PASSWD|PASSPHRASE|PWD$|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL|AUTHORIZATION", re.I
)
_DATABRICKS = ("databricks", "databricks-uc", "uc")


@dataclass(frozen=True)
class ConfiguredURI:
    """A variable that holds a URI; `kind` is None where MLflow does not look its scheme up in a registry."""

    variable: str
    value: str
    kind: str | None

    def __repr__(self) -> str:
        return f"ConfiguredURI({self.variable}={redact_text(self.value)!r})"


def configured_uris(environ: Mapping[str, str]) -> list[ConfiguredURI]:
    """Every URI that MLflow would read from the environment."""
    names = [n for n, value in environ.items() if value and (n in URI_VARIABLES or _ANY_URI.fullmatch(n))]
    return [ConfiguredURI(n, environ[n], URI_VARIABLES.get(n)) for n in sorted(names)]


def known_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values that must not be printed: of variables named like a secret, in configured URIs, in the netrc file."""
    secrets = {v for n, v in environ.items() if _SECRET_NAME.search(n) and not n.endswith(("_FILE", "_PATH"))}
    for uri in configured_uris(environ):
        password = _password(uri.value)
        secrets |= {password, unquote(password)}
    netrc_data = read_netrc(environ)
    if netrc_data:
        secrets |= {entry[2] or "" for entry in netrc_data.hosts.values()}
    return tuple(s for s in secrets if s and s.lower() not in ("true", "false"))


def scheme_of(uri: str) -> str | None:
    """The name under which MLflow looks a store up (mlflow.utils.uri.get_uri_scheme).

    Returns:
        None where MLflow refuses the URI as an unknown database.
    """
    if uri in _DATABRICKS:
        return uri
    try:
        scheme = urlsplit(uri).scheme
    except ValueError:
        return None
    if scheme.startswith(DATABASE_ENGINES):
        engine = scheme.split("+")[0]
        return engine if engine in DATABASE_ENGINES and scheme.count("+") <= 1 else None
    return "" if len(scheme) == 1 else scheme


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like it."""
    found = difflib.get_close_matches(name, [k for k in known if k], n=1, cutoff=0.5)
    return found[0] if found else None


def netrc_path(environ: Mapping[str, str]) -> Path | None:
    """The file that `requests` reads: $NETRC, else the first that exists of ~/.netrc and ~/_netrc."""
    if environ.get("NETRC"):
        candidates = [Path(environ["NETRC"]).expanduser()]
    else:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path(os.path.expanduser("~"))
        candidates = [home / ".netrc", home / "_netrc"]
    return next((p for p in candidates if p.is_file()), None)


def read_netrc(environ: Mapping[str, str]) -> netrc.netrc | None:
    """The parsed netrc file; None where there is none or it cannot be read (`requests` ignores it then, too)."""
    path = netrc_path(environ)
    if path is None:
        return None
    try:
        return netrc.netrc(str(path))
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None


def is_true(value: str | None) -> bool:
    """As MLflow reads its boolean variables."""
    return (value or "").lower() in ("true", "1")


def _password(uri: str) -> str:
    try:
        return urlsplit(uri).password or ""
    except ValueError:
        return ""
