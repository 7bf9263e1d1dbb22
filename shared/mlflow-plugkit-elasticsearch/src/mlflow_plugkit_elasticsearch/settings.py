"""Settings: the cluster and the prefix that a URI names, and what only the environment may say.

elasticsearch://host:9200/prefix            TLS, unless the host is this machine
elasticsearch+https://host/prefix           TLS, port 443
elasticsearch+http://host:9200/prefix       no TLS
elasticsearch://cloud/prefix                the cloud id from the environment
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option
from mlflow_plugkit.uri import PluginURI

if TYPE_CHECKING:
    from typing_extensions import Self

ENV = "MLFLOW_ELASTICSEARCH"
DEFAULT_PREFIX = "mlflow"
PREFIX = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}")
CLOUD_HOST = "cloud"


@dataclass(frozen=True, kw_only=True)
class ElasticsearchSettings(Settings):
    """Where the cluster is, how to log in, and how this process treats it.

    The first segment of the path is the prefix of every index, `mlflow` where there is none. Credentials,
    certificates and limits are read from the environment alone: MLflow shows and stores the URI.
    """

    schemes: ClassVar[tuple[str, ...]] = ("elasticsearch", "elasticsearch+https", "elasticsearch+http")

    tls: bool | None = option(
        None, env=f"{ENV}_TLS", help="Whether to use TLS. Unless given: not for a loopback address, for all others."
    )
    api_key: SecretStr | None = option(None, env=f"{ENV}_API_KEY", help="API key, as Elasticsearch encodes it.")
    username: str | None = option(None, env=f"{ENV}_USERNAME", in_uri=False, help="User, for basic authentication.")
    password: SecretStr | None = option(None, env=f"{ENV}_PASSWORD", help="Password of that user.")
    bearer_token: SecretStr | None = option(None, env=f"{ENV}_BEARER_TOKEN", help="OAuth2 or service account token.")
    cloud_id: str | None = option(
        None, env=f"{ENV}_CLOUD_ID", in_uri=False, help="Cloud id of a hosted deployment, for the host `cloud`."
    )
    nodes: tuple[str, ...] = option(
        (), env=f"{ENV}_NODES", in_uri=False, help="Further nodes of the same cluster as `host:port`."
    )
    ca_file: str | None = option(
        None, env=f"{ENV}_CA_FILE", in_uri=False, help="PEM file of the authority that signed the nodes' certificates."
    )
    fingerprint: str | None = option(
        None,
        env=f"{ENV}_FINGERPRINT",
        in_uri=False,
        help="SHA-256 fingerprint of the authority's certificate, as Elasticsearch prints it at its first start.",
    )
    timeout: float = option(30.0, env=f"{ENV}_TIMEOUT", in_uri=False, help="Seconds to wait for one answer.")
    retry_for: float = option(
        60.0,
        env=f"{ENV}_RETRY_FOR",
        in_uri=False,
        help="Seconds for which a request is repeated while the cluster is unreachable or overloaded.",
    )
    connections: int = option(
        16, env=f"{ENV}_CONNECTIONS", in_uri=False, help="Most idle connections of one process to one node."
    )
    shards: int = option(1, env=f"{ENV}_SHARDS", in_uri=False, help="Primary shards of each index that is created.")
    replicas: str = option(
        "0-1",
        env=f"{ENV}_REPLICAS",
        in_uri=False,
        help="Replicas of each index that is created: a number, or a range for `auto_expand_replicas`.",
    )
    create: bool = option(
        True,
        env=f"{ENV}_CREATE",
        in_uri=False,
        help="Create an index where it is missing. Turn it off where an administrator runs `bootstrap`.",
    )

    @classmethod
    def _read(cls, uri: PluginURI | None, environ: Mapping[str, str]) -> Self:
        settings = super()._read(uri, environ)
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse what no connection could be made of.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`.
        """
        self._check_address()
        kinds = [n for n in ("api_key", "password", "bearer_token") if getattr(self, n) is not None]
        if len(kinds) > 1:
            names = " and ".join(f"{ENV}_{n.upper()}" for n in kinds)
            raise mlflow_error(f"More than one kind of credentials is set: {names}. Keep one.")
        if (self.username is None) != (self.password is None):
            raise mlflow_error(f"Set both {ENV}_USERNAME and {ENV}_PASSWORD, or neither.")
        if self.fingerprint and not FINGERPRINT.fullmatch(self.fingerprint.replace(":", "")):
            raise mlflow_error(
                f"{ENV}_FINGERPRINT is no SHA-256 fingerprint: 64 hexadecimal digits, ':' between is fine."
            )
        if not re.fullmatch(r"\d+|\d+-(\d+|all)", self.replicas):
            raise mlflow_error(f"{ENV}_REPLICAS is {self.replicas!r}. Give a number, or a range such as 0-1.")
        for name in ("timeout", "retry_for", "connections", "shards"):
            value = getattr(self, name)
            if not (value > 0 or (name == "retry_for" and value == 0)):
                raise mlflow_error(f"{ENV}_{name.upper()} is {value}. Give a number above 0.")

    def _check_address(self) -> None:
        uri = self.address
        if not re.fullmatch(r"[a-z0-9._:-]+", uri.host):
            raise mlflow_error(f"{uri} names no valid host. Write elasticsearch://host:9200/{DEFAULT_PREFIX}.")
        if uri.host == CLOUD_HOST and not self.cloud_id:
            raise mlflow_error(f"{uri} stands for a hosted deployment. Set {ENV}_CLOUD_ID.")
        if not PREFIX.fullmatch(self.prefix):
            raise mlflow_error(
                f"{uri} names the prefix {uri.path.strip('/')!r}. Use at most 60 lower-case letters, digits, '-' and "
                "'_', beginning with a letter or digit."
            )
        if self.tls is not None and uri.scheme != "elasticsearch" and self.tls != (uri.scheme == "elasticsearch+https"):
            raise mlflow_error(
                f"{uri} and its TLS setting contradict each other. Write elasticsearch:// or drop `tls`."
            )

    @property
    def address(self) -> PluginURI:
        """The parsed URI; these settings always have one."""
        assert self.uri is not None
        return self.uri

    @property
    def prefix(self) -> str:
        """How the names of all indices begin."""
        return self.address.path.strip("/") or DEFAULT_PREFIX

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        if self.address.scheme != "elasticsearch":
            return self.address.scheme == "elasticsearch+https"
        return self.tls if self.tls is not None else not self.is_loopback

    @property
    def is_loopback(self) -> bool:
        """Whether the cluster is on this machine."""
        if self.address.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.address.host).is_loopback
        except ValueError:
            return False

    @property
    def urls(self) -> list[str]:
        """The nodes' URLs, without credentials."""
        scheme = "https" if self.uses_tls else "http"
        port = self.address.port or (443 if self.address.scheme == "elasticsearch+https" else 9200)
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return [f"{scheme}://{host}:{port}", *(f"{scheme}://{node}" for node in self.nodes)]

    @property
    def location(self) -> str:
        """The store's URI as it may be shown: no user, no password, no options."""
        port = f":{self.address.port}" if self.address.port else ""
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"{self.address.scheme}://{host}{port}/{self.prefix}"
