"""Settings: `oss://bucket/path` and the environment. Endpoints and credentials are never read from a URI."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option

if TYPE_CHECKING:
    from typing_extensions import Self

MEBIBYTE = 1024 * 1024
LEAST_PART = 100 * 1024
"""Bytes; OSS refuses smaller parts but for the last (EntityTooSmall)."""
METADATA_URL = "http://100.100.100.200"
"""The metadata service of an ECS instance, for RAM roles."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
# oss-cn-hangzhou[-internal].aliyuncs.com, cn-hangzhou.oss.aliyuncs.com (dual stack), oss-cn-x.oss-data-acc...
_REGION_IN_HOST = re.compile(
    r"(?:^|\.)(?:s3\.)?(?:oss-(?P<one>[a-z]{2}-[a-z0-9-]+?)(?:-internal)?|(?P<two>[a-z]{2}-[a-z0-9-]+)\.oss)"
    r"(?:\.oss-data-acc)?\.aliyuncs\.com$"
)
_REGION = re.compile(r"[a-z]{2}-[a-z0-9]+(?:-[a-z0-9]+)*")
_OSS_KEY_VARIABLES = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN")


@dataclass(frozen=True, kw_only=True)
class OssSettings(Settings):
    """An `oss://bucket/path` URI and the environment.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a URI without a bucket, with a user or a port, for
            settings that contradict each other, and where the region that V4 signatures need is unknown.
    """

    schemes: ClassVar[tuple[str, ...]] = ("oss",)

    endpoint: str | None = option(
        None,
        in_uri=False,
        env=("MLFLOW_OSS_ENDPOINT_URL", "OSS_ENDPOINT"),
        help="The endpoint, such as `https://oss-cn-hangzhou.aliyuncs.com`; https where no scheme is given. "
        "Without it, that of the region.",
    )
    region: str | None = option(
        None,
        in_uri=False,
        env=("MLFLOW_OSS_REGION", "OSS_REGION"),
        help="The bucket's region, such as `cn-hangzhou`. Without it, the one that the endpoint's name holds.",
    )
    network: Literal["public", "internal", "accelerate"] = option(
        "public",
        in_uri=False,
        env="MLFLOW_OSS_NETWORK",
        help="Which of the region's endpoints to use where no endpoint is given: from outside, from inside the "
        "region (no traffic fee), or transfer acceleration.",
    )
    key_id: SecretStr | None = option(
        None, in_uri=False, env=("MLFLOW_OSS_KEY_ID", "OSS_ACCESS_KEY_ID"), help="The AccessKey ID."
    )
    key_secret: SecretStr | None = option(
        None, in_uri=False, env=("MLFLOW_OSS_KEY_SECRET", "OSS_ACCESS_KEY_SECRET"), help="The AccessKey secret."
    )
    session_token: SecretStr | None = option(
        None,
        in_uri=False,
        env=("MLFLOW_OSS_SESSION_TOKEN", "OSS_SESSION_TOKEN"),
        help="The security token of temporary (STS) credentials.",
    )
    credentials_file: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_OSS_CREDENTIALS_FILE",
        help="A JSON file with STS credentials, as AssumeRole answers them; read again when it changes.",
    )
    credentials_uri: str | None = option(
        None,
        in_uri=False,
        env=("MLFLOW_OSS_CREDENTIALS_URI", "ALIBABA_CLOUD_CREDENTIALS_URI"),
        help="A URL that answers the same JSON; asked again before the credentials expire.",
    )
    ram_role: str | None = option(
        None,
        in_uri=False,
        env=("MLFLOW_OSS_RAM_ROLE", "ALIBABA_CLOUD_ECS_METADATA"),
        help="The RAM role of the ECS instance, or `auto` for the one that it has.",
    )
    metadata_url: str = option(
        METADATA_URL, in_uri=False, env="MLFLOW_OSS_METADATA_URL", help="Where the ECS metadata service listens."
    )
    signature: Literal["v4", "v1"] = option(
        "v4", in_uri=False, env="MLFLOW_OSS_SIGNATURE", help="The version of the signatures."
    )
    addressing: Literal["auto", "virtual", "path", "cname"] = option(
        "auto",
        in_uri=False,
        env="MLFLOW_OSS_ADDRESSING",
        help="Where the bucket's name stands: in the host, in the path, or nowhere because the endpoint is a domain "
        "bound to the bucket. `auto`: in the path for an IP address or localhost, else in the host.",
    )
    sdk: Literal["oss2", "v2"] = option(
        "oss2",
        in_uri=False,
        env="MLFLOW_OSS_SDK",
        help="Which of the vendor's SDKs to use: oss2, or its successor alibabacloud-oss-v2 (extra `[v2]`).",
    )
    ca_file: str | None = option(
        None,
        in_uri=False,
        env=("MLFLOW_OSS_CA_FILE", "REQUESTS_CA_BUNDLE"),
        help="A PEM file of certificate authorities to trust instead of the usual ones.",
    )
    connect_timeout: float = option(
        10.0, in_uri=False, env="MLFLOW_OSS_CONNECT_TIMEOUT", help="Seconds to wait for a connection."
    )
    read_timeout: float = option(
        60.0, in_uri=False, env="MLFLOW_OSS_READ_TIMEOUT", help="Seconds to wait for the next bytes of an answer."
    )
    parallel: int = option(16, in_uri=False, env="MLFLOW_OSS_PARALLEL", help="How many files or parts travel at once.")
    part_size: int = option(
        8 * MEBIBYTE, env="MLFLOW_OSS_PART_SIZE", help="Bytes of a part of a large transfer; at least 102400."
    )
    multipart_threshold: int = option(
        16 * MEBIBYTE, env="MLFLOW_OSS_MULTIPART_THRESHOLD", help="Bytes from which a file travels in parts."
    )
    storage_class: Literal["Standard", "IA"] | None = option(
        None, env="MLFLOW_OSS_STORAGE_CLASS", help="The storage class of new objects; without it, the bucket's."
    )
    encryption: Literal["AES256", "KMS", "SM4"] | None = option(
        None, env="MLFLOW_OSS_ENCRYPTION", help="Server-side encryption of new objects; without it, the bucket's."
    )
    kms_key_id: str | None = option(None, env="MLFLOW_OSS_KMS_KEY_ID", help="The key's ID for `encryption=KMS`.")

    @classmethod
    def from_uri(cls, uri: str, environ: Mapping[str, str] | None = None) -> Self:
        return super().from_uri(uri, one_set_of_keys(os.environ if environ is None else environ))

    def __post_init__(self) -> None:
        _ = self.bucket, self.endpoint_url, self.signing_region
        if bool(self.key_id) != bool(self.key_secret):
            missing = "MLFLOW_OSS_KEY_SECRET" if self.key_id else "MLFLOW_OSS_KEY_ID"
            raise mlflow_error(f"Of the AccessKey only one half is set. Set {missing} too.")
        if self.part_size < LEAST_PART:
            raise mlflow_error(f"part_size is {self.part_size} bytes; OSS takes parts of at least {LEAST_PART}.")
        for name in ("connect_timeout", "read_timeout", "parallel", "multipart_threshold"):
            if getattr(self, name) <= 0:
                raise mlflow_error(f"{name} is {getattr(self, name)}; it must be greater than 0.")
        if self.kms_key_id and self.encryption != "KMS":
            raise mlflow_error("kms_key_id is set, but encryption is not KMS. Set encryption=KMS, or leave it out.")

    @cached_property
    def bucket(self) -> str:
        """The bucket that the URI names."""
        if self.uri is None or not self.uri.host:
            raise mlflow_error("The URI names no bucket. Write it as oss://bucket/path.")
        if self.uri.username or self.uri.password or self.uri.port is not None:
            raise mlflow_error(
                f"{self.uri} holds a user or a port. Write oss://bucket/path; credentials are read "
                "from MLFLOW_OSS_KEY_ID and MLFLOW_OSS_KEY_SECRET, the endpoint from MLFLOW_OSS_ENDPOINT_URL."
            )
        if not _BUCKET.fullmatch(self.uri.host):
            raise mlflow_error(
                f"{self.uri.host!r} is no bucket's name: 3 to 63 lower-case letters, digits and hyphens, "
                "neither first nor last a hyphen."
            )
        return self.uri.host

    @cached_property
    def prefix(self) -> str:
        """The root's key prefix without slashes at its ends; "" for the whole bucket.

        As it stands in the URI: a `%20` is three characters of the key, as in MLflow's own `s3:` repository
        and in aliyunstoreplugin, whose artifacts would not be found otherwise.
        """
        return urlsplit(self.uri.text).path.strip("/") if self.uri else ""

    @cached_property
    def endpoint_url(self) -> str:
        """Scheme, host and port to connect to."""
        if self.endpoint is None:
            if self.network == "accelerate":
                return "https://oss-accelerate.aliyuncs.com"
            if not self.region:
                raise mlflow_error(
                    "No OSS endpoint is set. Set MLFLOW_OSS_ENDPOINT_URL, such as "
                    "https://oss-cn-hangzhou.aliyuncs.com, or OSS_REGION."
                )
            inner = "-internal" if self.network == "internal" else ""
            return f"https://oss-{_clean_region(self.region)}{inner}.aliyuncs.com"
        text = self.endpoint.strip()
        try:
            parts = urlsplit(text if "://" in text else f"https://{text}")
            good = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/") and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.query or parts.username or parts.password:
            raise mlflow_error(
                f"The endpoint {self.endpoint!r} is not of the form https://host[:port]. Set MLFLOW_OSS_ENDPOINT_URL "
                "to the region's endpoint, without the bucket's name."
            )
        return f"{parts.scheme}://{parts.netloc}"

    @cached_property
    def host(self) -> str:
        """The endpoint's host, without port."""
        return urlsplit(self.endpoint_url).hostname or ""

    @cached_property
    def address_style(self) -> Literal["virtual", "path", "cname"]:
        """`addressing`, with `auto` resolved."""
        if self.addressing != "auto":
            return self.addressing
        is_address = self.host == "localhost" or ":" in self.host or re.fullmatch(r"[\d.]+", self.host)
        return "path" if is_address else "virtual"

    @cached_property
    def signing_region(self) -> str | None:
        """The region for V4 signatures; None where V1 needs none."""
        if self.region:
            return _clean_region(self.region)
        if found := _REGION_IN_HOST.search(self.host):
            return found["one"] or found["two"]
        if self.signature == "v1":
            return None
        raise mlflow_error(
            f"The endpoint {self.endpoint_url} does not show the bucket's region, which V4 signatures need. Set "
            "OSS_REGION, such as cn-hangzhou; for a server that knows no V4 signatures set MLFLOW_OSS_SIGNATURE=v1."
        )


def one_set_of_keys(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment without the `OSS_*` keys where `MLFLOW_OSS_KEY_ID` is set: two sets must not mix.

    A session token belongs to its key: that of another one would make every request fail.
    """
    if not any(environ.get(name) for name in ("MLFLOW_OSS_KEY_ID", "MLFLOW_OSS_KEY_ID_FILE")):
        return environ
    if not any(environ.get(name) for name in ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_ID_FILE")):
        return environ
    hidden = {f"{name}{suffix}" for name in _OSS_KEY_VARIABLES for suffix in ("", "_FILE")}
    return {name: value for name, value in environ.items() if name not in hidden}


def _clean_region(region: str) -> str:
    """`oss-cn-hangzhou` means `cn-hangzhou`. The name becomes part of a host, so it is checked."""
    name = region.strip().lower().removeprefix("oss-")
    if not _REGION.fullmatch(name):
        raise mlflow_error(f"OSS_REGION is {region!r}, which is no region's name. Write it like cn-hangzhou.")
    return name
