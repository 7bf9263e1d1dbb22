"""Connections: boto3 clients and what goes beside them, shared by all repositories with the same settings."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.requirements import require
from mlflow_s3_artifacts.settings import S3Settings

DISTRIBUTION = "mlflow-s3-artifacts"
# Changed credentials of a kind that boto3 does not refresh (a rewritten file) are seen after so many seconds.
LIFETIME = 300
_lock = threading.Lock()


class _Key(NamedTuple):
    """What tells connections apart."""

    endpoint: str | None
    region: str | None
    style: str
    profile: str | None
    ca_bundle: str | None
    ignore_tls: bool
    anonymous: bool
    checksums: str
    parallel: int
    timeouts: tuple[float, float]
    environment: int
    process: int
    period: int


class Connection:
    """A boto3 client, its session's credentials and an HTTP session for requests that boto3 only signs.

    Attributes:
        client: boto3's S3 client. It tries once: the engine repeats.
        http: botocore's HTTP session, with the same certificates, proxies and timeouts as the client's.
        ca_bundle: the PEM file in use, or None for botocore's own choice.
        made: further objects that share the connection's life, by key (see `once`).
    """

    def __init__(self, key: _Key) -> None:
        boto3 = require("boto3", distribution=DISTRIBUTION)
        core = require("botocore.session", distribution=DISTRIBUTION).Session(profile=key.profile)
        loader = _loader(core.get_config_variable("data_path"))
        core.register_component("data_loader", loader)
        self.key = key
        self.ca_bundle: str | None = key.ca_bundle or core.get_config_variable("ca_bundle")
        verify = False if key.ignore_tls else self.ca_bundle
        self.client: Any = boto3.Session(botocore_session=core).client(
            "s3",
            endpoint_url=key.endpoint,
            region_name=key.region or core.get_config_variable("region") or "us-east-1",
            verify=verify,
            config=_config(key),
        )
        loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # each boto3 session adds its own folder
        self.client.meta.events.register("before-sign.s3.DeleteObjects", _add_content_md5)
        self.http = _http_session(key, verify, self.client.meta.endpoint_url)
        self._session = core
        self._hidden: Any = None
        self._made: dict[Any, Any] = {}

    def credentials(self) -> Any | None:
        """The access key, secret key and token in use now (botocore's ReadOnlyCredentials), refreshed where due."""
        if self.key.anonymous:
            return None
        found = self._session.get_credentials()
        frozen = found.get_frozen_credentials() if found else None
        if frozen != self._hidden:
            hide(*secrets_of(frozen))
            self._hidden = frozen
        return frozen

    def expiry(self) -> Any | None:
        """When the credentials in use end (an aware datetime), or None where they do not."""
        return getattr(self._session.get_credentials(), "_expiry_time", None)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The object `make` made for this key, once."""
        with _lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


def connect(settings: S3Settings) -> Connection:
    """The connection for these settings: shared within the process, made anew after a fork and every five minutes."""
    key = _Key(
        settings.endpoint,
        settings.region,
        settings.style,
        settings.profile_name,
        settings.ca_bundle,
        settings.ignore_tls,
        settings.anonymous,
        settings.checksums,
        settings.parallel,
        (settings.connect_timeout, settings.read_timeout),
        hash(tuple(sorted((n, v) for n, v in os.environ.items() if n.startswith("AWS_")))),
        os.getpid(),
        int(time.monotonic() / LIFETIME),
    )
    with _lock:
        connection = _connection(key)
    connection.credentials()
    return connection


@lru_cache(maxsize=4)
def _loader(data_path: str | None) -> Any:
    """What botocore knows of the services, read once: parsing it takes most of a client's first second."""
    return require("botocore.loaders", distribution=DISTRIBUTION).create_loader(data_path)


@lru_cache(maxsize=16)
def _connection(key: _Key) -> Connection:
    return Connection(key)


def secrets_of(credentials: Any | None) -> tuple[str, ...]:
    """What no log may show of a set of credentials; the access key is a part of signatures, so it is hidden, too."""
    parts = (credentials.secret_key, credentials.token, credentials.access_key) if credentials else ()
    return tuple(part for part in parts if part)


def hide(*secrets: str) -> None:
    """Redact the secrets in what boto3 and its HTTP library log: at DEBUG they show tokens and signed requests."""
    known = list(logging.root.manager.loggerDict)
    for name in known:
        if name.partition(".")[0] in ("boto3", "botocore", "urllib3", "s3transfer"):
            get_logger(name, secrets)


def _config(key: _Key) -> Any:
    botocore = require("botocore.config", distribution=DISTRIBUTION)
    unsigned = require("botocore", distribution=DISTRIBUTION).UNSIGNED
    return botocore.Config(
        signature_version=unsigned if key.anonymous else "s3v4",
        s3={"addressing_style": key.style},
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation=key.checksums,
        response_checksum_validation=key.checksums,
        connect_timeout=key.timeouts[0],
        read_timeout=key.timeouts[1],
        max_pool_connections=2 * key.parallel,
        user_agent_extra=DISTRIBUTION,
    )


def _http_session(key: _Key, verify: Any, url: str) -> Any:
    httpsession = require("botocore.httpsession", distribution=DISTRIBUTION)
    proxies = require("botocore.utils", distribution=DISTRIBUTION).get_environ_proxies(url)
    return httpsession.URLLib3Session(
        verify=True if verify is None else verify,
        proxies=proxies,
        timeout=key.timeouts,
        max_pool_connections=2 * key.parallel,
    )


def _add_content_md5(request: Any, **_: Any) -> None:
    """`DeleteObjects` once needed this header, and services that never learned of checksums still do."""
    import base64
    import hashlib

    body = request.body if isinstance(request.body, bytes) else b""
    if body:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
