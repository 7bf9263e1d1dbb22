"""obstore's view of a connection: a store with boto3's credentials, and its errors as botocore's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from mlflow_plugkit.requirements import require
from mlflow_s3_artifacts.client import DISTRIBUTION, Connection
from mlflow_s3_artifacts.settings import S3Settings
from mlflow_s3_artifacts.wire import client_error

# botocore renews credentials 10 to 15 minutes before they end; obstore asks again after this.
CREDENTIALS_FOR = timedelta(minutes=15)
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_processes: list[int] = []
"""The process whose obstore has threads of its own, once it has any: a fork copies none of them."""


def obstore() -> Any:
    """The module `obstore`, or an error that says how to install it."""
    return require("obstore", distribution=DISTRIBUTION, extra="fast")


def survives_here() -> bool:
    """Whether obstore can be used: not in a child that was forked after its parent had used it, where it hangs."""
    return not _processes or _processes[0] == os.getpid()


def store_for(connection: Connection, settings: S3Settings) -> Any:
    """The bucket as obstore's `S3Store`, made once for a connection and the options that belong to the store.

    Raises:
        NoCredentialsError: botocore's, where its chain finds none.
    """
    if not settings.anonymous and connection.credentials() is None:
        from botocore.exceptions import NoCredentialsError

        raise NoCredentialsError
    options = (settings.bucket, settings.sse, settings.sse_kms_key_id, settings.upload_check)
    return connection.once(options, lambda: _make(connection, settings))


def _make(connection: Connection, settings: S3Settings) -> Any:
    _processes[:] = _processes or [os.getpid()]
    S3Store: Any = require("obstore.store", distribution=DISTRIBUTION, extra="fast").S3Store  # noqa: N806 # a class
    config: dict[str, Any] = {
        "region": _region(connection, settings),
        "virtual_hosted_style_request": settings.style == "virtual" or not settings.endpoint,
    }
    if settings.endpoint:
        config["endpoint"] = _endpoint(settings)
    if settings.anonymous:
        config["skip_signature"] = True
    if encryption := settings.extra_args.get("ServerSideEncryption"):
        config["server_side_encryption"] = encryption
        if settings.sse_kms_key_id:
            config["sse_kms_key_id"] = settings.sse_kms_key_id
    if settings.upload_check != "off":
        config["checksum_algorithm"] = "SHA256"
    return S3Store(
        settings.bucket,
        client_options=_client_options(connection, settings),
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        credential_provider=None if settings.anonymous else _provider(connection),
        **config,
    )


def _endpoint(settings: S3Settings) -> str:
    endpoint = str(settings.endpoint)
    return endpoint.replace("://", f"://{settings.bucket}.", 1) if settings.style == "virtual" else endpoint


def _region(connection: Connection, settings: S3Settings) -> str:
    """The region to sign for: Amazon refuses another than the bucket's own, to which boto3 would be redirected."""
    configured = str(connection.client.meta.region_name)
    if settings.endpoint or settings.region:
        return configured
    answer = connection.client.head_bucket(Bucket=settings.bucket)
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", configured))


def _client_options(connection: Connection, settings: S3Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "allow_http": (settings.endpoint or "").startswith("http://"),
        "allow_invalid_certificates": settings.ignore_tls,
        "connect_timeout": timedelta(seconds=settings.connect_timeout),
        "read_timeout": timedelta(seconds=settings.read_timeout),
        "timeout": timedelta(days=1),  # of a whole transfer; read_timeout bounds its silence
    }
    if connection.ca_bundle and not settings.ignore_tls:
        options["root_certificate"] = Path(connection.ca_bundle).read_bytes()
    return options


def _provider(connection: Connection) -> Callable[[], dict[str, Any]]:
    """What obstore asks for credentials: boto3's chain, with its refresh."""

    def credentials() -> dict[str, Any]:
        now = datetime.now(timezone.utc)
        frozen, expiry = connection.credentials(), connection.expiry()
        assert frozen is not None  # store_for is asked only after boto3 has found some
        until = now + CREDENTIALS_FOR
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            # obstore takes no other time zone than this object, botocore's is dateutil's.
            "expires_at": min(until, expiry.astimezone(timezone.utc)) if expiry else until,
        }

    return credentials


@contextmanager
def botocore_errors(operation: str, endpoint: str) -> Iterator[None]:
    """Raise obstore's errors as botocore's, so that one table knows them."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.BaseError, FileNotFoundError) as exc:
        converted: Exception = _converted(exc, operation, endpoint)
        raise converted from None


def _converted(exc: BaseException, operation: str, endpoint: str) -> Exception:
    from botocore import exceptions as core

    text = str(exc)
    status = _STATUS.search(text)
    if status:
        return client_error(operation, int(status[1]), {}, text.encode())
    # obstore ends its messages with Rust's own representation of the error, over dozens of lines.
    reason = text.partition("\n\nDebug source:")[0].replace("\n", " ")
    made: Exception = core.HTTPClientError(error=reason)
    return core.SSLError(endpoint_url=endpoint, error=reason) if "certificate" in text.lower() else made
