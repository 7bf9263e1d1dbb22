"""Which hosts a tracking server connects to on behalf of its clients.

A client may store any artifact location with an experiment or a model version, and a server that makes a
repository of it would connect to the host that the client named (GHSA-mr9f-g8qf-4w4j; MLflow's own rule,
mlflow.store.artifact.host_policy, covers built-in schemes only). So in a server process, and in the job
processes that inherit its environment, an endpoint is connected to only if it is that of the server's own
`--default-artifact-root` or `--artifacts-destination`, or is listed in `MLFLOW_PLUGKIT_ALLOWED_HOSTS`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mlflow.exceptions import MlflowException

from mlflow_plugkit.compat import server_artifact_locations
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import parse_uri

ALLOWED_VARIABLE = "MLFLOW_PLUGKIT_ALLOWED_HOSTS"


@dataclass(frozen=True)
class Endpoint:
    """What a URI makes a process connect to: scheme and host in lower case, and the effective port, if known."""

    scheme: str
    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


def endpoint_of(uri: str, default_ports: Mapping[str, int] | None = None) -> Endpoint:
    """The endpoint that the authority of a URI names.

    Args:
        uri: any URI; an error in it is raised as `parse_uri` raises it.
        default_ports: the port that a scheme connects to where the URI names none (`{"s3+https": 443}`).

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, also for a host that two parsers could read differently.
    """
    parsed = parse_uri(uri)
    if any(c in "\\@/?#%" or c.isspace() for c in parsed.host):
        raise mlflow_error(f"{parsed} does not name a host that can be connected to.")
    port = parsed.port if parsed.port is not None else (default_ports or {}).get(parsed.scheme)
    return Endpoint(parsed.scheme, parsed.host.rstrip("."), port)


def check_uri(uri: str, default_ports: Mapping[str, int] | None = None) -> None:
    """Refuse a URI whose authority names an endpoint that this process must not connect to.

    For schemes whose URI holds the endpoint (`s3+https://endpoint/bucket`, `mssql+pyodbc://host/db`). A plugin
    calls it in `make_backend`. Outside of a server process everything is allowed.

    Raises:
        MlflowException: `PERMISSION_DENIED`, naming the variable that allows it.
    """
    if server_artifact_locations() is not None:
        check_endpoint(endpoint_of(uri, default_ports), default_ports)


def check_endpoint(endpoint: Endpoint, default_ports: Mapping[str, int] | None = None) -> None:
    """Refuse an endpoint as `check_uri` does, for what a URI names elsewhere than in its authority."""
    locations = server_artifact_locations()
    if locations is None or endpoint in _trusted(locations, default_ports) or _is_listed(endpoint):
        return
    raise mlflow_error(
        f"This MLflow server does not connect to {endpoint}: an artifact location that a client stored names it, and "
        f"it is neither the server's own artifact root or destination nor listed in {ALLOWED_VARIABLE}. If the "
        f"server's operator trusts it, set {ALLOWED_VARIABLE}={endpoint.host} for the server.",
        "PERMISSION_DENIED",
    )


def _trusted(locations: tuple[str, ...], default_ports: Mapping[str, int] | None) -> set[Endpoint]:
    trusted = set()
    for location in locations:
        try:
            endpoint = endpoint_of(location, default_ports)
        except MlflowException:
            continue  # a local path, which names no endpoint
        if endpoint.host:
            trusted.add(endpoint)
    return trusted


def _is_listed(endpoint: Endpoint) -> bool:
    entries = os.environ.get(ALLOWED_VARIABLE, "").split(",")
    return any(_matches(entry.strip().lower(), endpoint) for entry in entries if entry.strip())


def _matches(entry: str, endpoint: Endpoint) -> bool:
    """Whether an entry allows the endpoint: `host`, `host:port` or `scheme://host[:port]`; `*` stands for a part."""
    scheme, _, rest = entry.rpartition("://")
    if scheme and scheme != endpoint.scheme:
        return False
    host, _, port = rest.rpartition(":")
    if not port.isdigit() or (":" in host and not host.startswith("[")):
        host, port = rest, ""
    host = host.removeprefix("[").removesuffix("]")
    return bool(endpoint.host) and fnmatchcase(endpoint.host, host) and port in ("", str(endpoint.port or ""))
