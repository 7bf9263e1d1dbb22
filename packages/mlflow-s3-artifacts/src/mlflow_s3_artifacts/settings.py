"""Settings: the URI, the environment and their defaults."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option
from mlflow_plugkit.uri import PluginURI

PREFIX = "MLFLOW_S3_ARTIFACTS_"
PORTS = {"s3+https": 443, "s3+http": 80}
SMALLEST_PART, LARGEST_PART = 5, 5 * 1024  # MiB: Amazon S3 user guide, "Multipart upload limits"

# Amazon S3 user guide, "General purpose bucket naming rules"; other services also have upper case and "_".
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_LENIENT_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){1,61}[A-Za-z0-9]")
_USERINFO = re.compile(r"(?<=:)//[^/]*@")


@dataclass(frozen=True, kw_only=True)
class S3Settings(Settings):
    """`s3+https://endpoint[:port]/bucket/prefix`, `s3+http://...`, or `s3://bucket/prefix` where that is taken over."""

    schemes: ClassVar[tuple[str, ...]] = ("s3+https", "s3+http", "s3")

    region: str | None = option(
        None,
        env=f"{PREFIX}REGION",
        help="Region to sign for. Without it the profile's, `AWS_DEFAULT_REGION`, `us-east-1`.",
    )
    addressing_style: Literal["auto", "path", "virtual"] = option(
        "auto",
        env=(f"{PREFIX}ADDRESSING_STYLE", "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"),
        help="`path`: endpoint/bucket; `virtual`: bucket.endpoint; `auto`: path for an endpoint of one's own.",
    )
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = option(
        None, env=f"{PREFIX}SSE", help="Server-side encryption to ask for."
    )
    sse_kms_key_id: str | None = option(
        None, env=f"{PREFIX}SSE_KMS_KEY_ID", help="KMS key for `sse=aws:kms`; without it the account's default key."
    )
    storage_class: str | None = option(
        None, env=f"{PREFIX}STORAGE_CLASS", help="Storage class of new objects, such as `STANDARD_IA`."
    )
    profile: str | None = option(
        None, in_uri=False, env=f"{PREFIX}PROFILE", help="Profile of the AWS configuration files to use."
    )
    profiles: tuple[str, ...] = option(
        (),
        in_uri=False,
        env=f"{PREFIX}PROFILES",
        help="A profile for each endpoint: `minio.example:9000=minio,ceph.example=ceph`. Wins over `profile`.",
    )
    acl: str | None = option(None, in_uri=False, env=f"{PREFIX}ACL", help="Canned ACL of new objects.")
    upload_extra_args: str | None = option(
        None,
        in_uri=False,
        env=(f"{PREFIX}UPLOAD_EXTRA_ARGS", "MLFLOW_S3_UPLOAD_EXTRA_ARGS"),
        help="Further arguments of boto3's `put_object`, as a JSON object.",
    )
    expected_bucket_owner: str | None = option(
        None,
        in_uri=False,
        env=(f"{PREFIX}EXPECTED_BUCKET_OWNER", "MLFLOW_S3_EXPECTED_BUCKET_OWNER"),
        help="Account id; requests fail where the bucket belongs to another.",
    )
    endpoint_url: str | None = option(
        None, in_uri=False, env="MLFLOW_S3_ENDPOINT_URL", help="Endpoint of `s3://` locations; others name theirs."
    )
    ca_bundle: str | None = option(
        None, in_uri=False, env=(f"{PREFIX}CA_BUNDLE", "AWS_CA_BUNDLE"), help="PEM file of the CAs to trust."
    )
    ignore_tls: bool = option(
        False,
        in_uri=False,
        env=(f"{PREFIX}IGNORE_TLS", "MLFLOW_S3_IGNORE_TLS"),
        help="Accept any certificate. For tests only: anybody on the way can read and change everything.",
    )
    anonymous: bool = option(
        False, in_uri=False, env=f"{PREFIX}ANONYMOUS", help="Send no signature, to read public buckets."
    )
    checksums: Literal["when_required", "when_supported"] = option(
        "when_required",
        in_uri=False,
        env=f"{PREFIX}CHECKSUMS",
        help="botocore's `request_checksum_calculation` and `response_checksum_validation`.",
    )
    upload_check: Literal["crc32c", "md5", "off"] = option(
        "crc32c",
        in_uri=False,
        env=f"{PREFIX}UPLOAD_CHECK",
        help="What the server checks an upload by: an `x-amz-checksum` header, `Content-MD5`, or nothing.",
    )
    data_plane: Literal["auto", "boto3", "obstore"] = option(
        "auto",
        in_uri=False,
        env=f"{PREFIX}DATA_PLANE",
        help="Who moves content; `auto`: obstore where it is installed and can do what is asked for.",
    )
    part_size: int = option(16, in_uri=False, env=f"{PREFIX}PART_SIZE", help="MiB of a part of a large transfer.")
    multipart_threshold: int = option(
        32, in_uri=False, env=f"{PREFIX}MULTIPART_THRESHOLD", help="MiB from which a file travels in parts."
    )
    parallel: int = option(16, in_uri=False, env=f"{PREFIX}PARALLEL", help="Files or parts that travel at once.")
    connect_timeout: float = option(
        10.0, in_uri=False, env=f"{PREFIX}CONNECT_TIMEOUT", help="Seconds to wait for a connection."
    )
    read_timeout: float = option(
        60.0, in_uri=False, env=f"{PREFIX}READ_TIMEOUT", help="Seconds to wait for the next bytes of an answer."
    )
    retries: int = option(6, in_uri=False, env=f"{PREFIX}RETRIES", help="How often an operation is tried in all.")

    @classmethod
    def from_uri(cls, uri: str, environ: Mapping[str, str] | None = None) -> S3Settings:
        """Read and check a location.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`, also for credentials in the URI, a missing or invalid bucket
                and numbers out of range.
        """
        if _has_userinfo(uri):
            raise mlflow_error(
                f"{_USERINFO.sub('//***@', uri, count=1)!r} holds credentials, which MLflow would store in clear. Take "
                f"them out: they come from boto3's own chain, or from the profile that {PREFIX}PROFILES names."
            )
        settings = super().from_uri(uri, environ)
        settings._check_place()
        settings._check_numbers()
        _ = settings.extra_args, settings.profile_name
        return settings

    @property
    def location(self) -> PluginURI:
        """The parsed URI."""
        assert self.uri is not None  # from_uri is the only way to make one
        return self.uri

    @property
    def endpoint(self) -> str | None:
        """The endpoint's URL, or None where boto3 chooses Amazon's."""
        uri = self.location
        if uri.scheme == "s3":
            return self.endpoint_url
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        return f"{uri.scheme.removeprefix('s3+')}://{host}" + (f":{uri.port}" if uri.port else "")

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        if self.location.scheme == "s3":
            return self.location.host
        return self.location.path.strip("/").partition("/")[0]

    @property
    def prefix(self) -> str:
        """The root's key, without slashes around it; "" for the whole bucket."""
        path = self.location.path.strip("/")
        return path if self.location.scheme == "s3" else path.partition("/")[2].strip("/")

    @property
    def root(self) -> str:
        """The location without its options."""
        uri = self.location
        place = f"s3://{self.bucket}" if uri.scheme == "s3" else f"s3+{self.endpoint}/{self.bucket}"
        return f"{place}/{self.prefix}".rstrip("/")

    @property
    def style(self) -> str:
        """The addressing style for botocore."""
        return "path" if self.addressing_style == "auto" and self.endpoint else self.addressing_style

    @property
    def profile_name(self) -> str | None:
        """The profile for this endpoint."""
        uri, named = self.location, {}
        for entry in self.profiles:
            place, separator, name = entry.rpartition("=")
            if not (separator and place.strip() and name.strip()):
                raise mlflow_error(f"{PREFIX}PROFILES: {entry!r} is not of the form host[:port]=profile.")
            named[place.strip().lower()] = name.strip()
        if uri.scheme == "s3":
            return self.profile
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        return named.get(f"{host}:{uri.port or PORTS[uri.scheme]}") or named.get(host) or self.profile

    @property
    def extra_args(self) -> dict[str, Any]:
        """Arguments of boto3's `put_object` and `create_multipart_upload` for each new object."""
        own = {
            "ACL": self.acl,
            "ServerSideEncryption": self.sse or ("aws:kms" if self.sse_kms_key_id else None),
            "SSEKMSKeyId": self.sse_kms_key_id,
            "StorageClass": self.storage_class,
        }
        return _json_object(self.upload_extra_args) | {name: value for name, value in own.items() if value}

    @property
    def owner_args(self) -> dict[str, str]:
        """The argument of every boto3 call that names the bucket's owner."""
        return {"ExpectedBucketOwner": self.expected_bucket_owner} if self.expected_bucket_owner else {}

    def _check_place(self) -> None:
        uri, bucket = self.location, self.bucket
        if uri.scheme != "s3" and not uri.host:
            raise mlflow_error(f"{uri} names no endpoint. Write it as {uri.scheme}://endpoint[:port]/bucket/prefix.")
        if uri.scheme == "s3" and uri.port is not None:
            raise mlflow_error(
                f"{uri} has a port, but s3:// names a bucket. Use s3+https://endpoint:port/bucket/prefix."
            )
        if not bucket:
            form = "s3://bucket/prefix" if uri.scheme == "s3" else f"{uri.scheme}://endpoint[:port]/bucket/prefix"
            raise mlflow_error(f"{uri} names no bucket. Write it as {form}.")
        strict = not self.endpoint or self.style == "virtual"
        if not (_BUCKET if strict else _LENIENT_BUCKET).fullmatch(bucket) or _is_address(bucket):
            raise mlflow_error(
                f"{bucket!r} in {uri} is no valid bucket name: 3 to 63 letters, digits, dots and hyphens"
                + (", in lower case, that begin and end with a letter or a digit." if strict else ".")
            )

    def _check_numbers(self) -> None:
        limits = {
            "part_size": (SMALLEST_PART, LARGEST_PART),
            "multipart_threshold": (SMALLEST_PART, LARGEST_PART),
            "parallel": (1, 256),
            "connect_timeout": (0.1, 3600),
            "read_timeout": (0.1, 3600),
            "retries": (1, 100),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise mlflow_error(f"{PREFIX}{name.upper()} is {getattr(self, name)}, not between {least} and {most}.")


def _has_userinfo(uri: str) -> bool:
    return bool(_USERINFO.search(uri.partition("?")[0]))


def _is_address(bucket: str) -> bool:
    try:
        ipaddress.IPv4Address(bucket)
    except ValueError:
        return False
    return True


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as exc:
        raise mlflow_error(f"{PREFIX}UPLOAD_EXTRA_ARGS is no JSON: {exc}.") from None
    if not isinstance(value, dict):
        raise mlflow_error(f'{PREFIX}UPLOAD_EXTRA_ARGS is no JSON object, such as {{"StorageClass": "STANDARD_IA"}}.')
    return value
