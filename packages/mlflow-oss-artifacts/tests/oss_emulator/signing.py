"""Signature check, versions 1 and 4, in the header and in the query.

Sources: Alibaba Cloud OSS, "Include signatures in the Authorization header" and "Add signatures to URLs", of
signature version 1 and of version 4. Shares no code with the SDKs.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

ALGORITHM = "OSS4-HMAC-SHA256"
SKEW_SECONDS = 900
# Query parameters that version 1 signs: sub-resources and response overrides.
SUBRESOURCES = {
    "acl", "uploads", "uploadId", "partNumber", "delete", "location", "objectMeta", "security-token", "symlink",
    "continuation-token", "x-oss-process", "versionId", "restore", "tagging", "append", "position", "bucketInfo",
    *(f"response-{name}" for name in ("content-type", "content-language", "expires", "cache-control",
                                      "content-disposition", "content-encoding")),
}  # fmt: skip


class OssError(Exception):
    """An answer with OSS's error XML."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code


@dataclass
class Key:
    """An AccessKey that the server knows. `token` and `expires` (seconds since the epoch) for temporary ones."""

    secret: str
    token: str | None = None
    expires: float | None = None


@dataclass
class Signed:
    """What a signature covers."""

    method: str
    bucket: str
    key: str
    query: list[tuple[str, str]]
    headers: dict[str, str]

    @property
    def parameters(self) -> dict[str, str]:
        return dict(self.query)


def check(request: Signed, keys: dict[str, Key], region: str, accepted: set[str]) -> str:
    """The version ("v1" or "v4") of a good signature.

    Raises:
        OssError: as OSS answers.
    """
    authorization, parameters = request.headers.get("authorization", ""), request.parameters
    if authorization.startswith(ALGORITHM) or parameters.get("x-oss-signature-version") == ALGORITHM:
        version = "v4"
        _check_v4(request, keys, region)
    elif authorization.startswith("OSS ") or "OSSAccessKeyId" in parameters:
        version = "v1"
        _check_v1(request, keys)
    else:
        raise OssError(403, "AccessDenied", "You have no right to access this object because of bucket acl.")
    if version not in accepted:
        raise OssError(400, "InvalidArgument", f"signature {version} is not accepted")
    return version


def _check_v4(request: Signed, keys: dict[str, Key], region: str) -> None:
    parameters, in_query = request.parameters, "x-oss-signature" in request.parameters
    if in_query:
        credential, given = parameters["x-oss-credential"], parameters["x-oss-signature"]
        moment, token = parameters["x-oss-date"], parameters.get("x-oss-security-token")
        additional = parameters.get("x-oss-additional-headers", "")
        _check_time(moment, int(parameters["x-oss-expires"]))
        query = [(name, value) for name, value in request.query if name != "x-oss-signature"]
        payload = "UNSIGNED-PAYLOAD"
    else:
        text = request.headers["authorization"].removeprefix(ALGORITHM)
        fields = dict(field.strip().split("=", 1) for field in text.split(","))
        credential, given = fields["Credential"], fields["Signature"]
        moment, token = request.headers.get("x-oss-date", ""), request.headers.get("x-oss-security-token")
        additional = fields.get("AdditionalHeaders", "")
        _check_time(moment, None)
        query, payload = request.query, request.headers.get("x-oss-content-sha256", "")
        if payload != "UNSIGNED-PAYLOAD":
            raise OssError(400, "InvalidArgument", "x-oss-content-sha256 must be UNSIGNED-PAYLOAD")
    key_id, date, scope_region, product, end = credential.split("/")
    key = _known(keys, key_id, token)
    if (scope_region, product, end, date) != (region, "oss", "aliyun_v4_request", moment[:8]):
        raise OssError(403, "SignatureDoesNotMatch", f"Invalid signing scope {credential}")
    names = {name for name in additional.split(";") if name}
    signed = {
        name: value
        for name, value in request.headers.items()
        if name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in names
    }
    canonical = "\n".join(
        [
            request.method,
            quote("/" + (f"{request.bucket}/{request.key}" if request.bucket else ""), safe="/-_.~"),
            "&".join(_pair(name, value) for name, value in sorted((_quoted(n), _quoted(v)) for n, v in query)),
            "".join(f"{name}:{signed[name]}\n" for name in sorted(signed)),
            ";".join(sorted(names)),
            payload,
        ]
    )
    to_sign = "\n".join(
        [ALGORITHM, moment, f"{date}/{region}/oss/aliyun_v4_request", hashlib.sha256(canonical.encode()).hexdigest()]
    )
    secret = f"aliyun_v4{key.secret}".encode()
    for part in (date, region, "oss", "aliyun_v4_request", to_sign):
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    _compare(secret.hex(), given, canonical)


def _check_v1(request: Signed, keys: dict[str, Key]) -> None:
    parameters = request.parameters
    token = request.headers.get("x-oss-security-token") or request.headers.get("security-token")
    if "OSSAccessKeyId" in parameters:
        key_id, given, date = parameters["OSSAccessKeyId"], parameters["Signature"], parameters["Expires"]
        token = parameters.get("security-token")
        if int(date) < time.time():
            raise OssError(403, "AccessDenied", "Request has expired.")
    else:
        key_id, _, given = request.headers["authorization"].removeprefix("OSS ").partition(":")
        date = request.headers.get("x-oss-date") or request.headers.get("date", "")
        if abs(parsedate_to_datetime(date).timestamp() - time.time()) > SKEW_SECONDS:
            raise OssError(403, "RequestTimeTooSkewed", "The difference between the request time and now is too large.")
    key = _known(keys, key_id, token)
    inner = sorted((name, value) for name, value in request.query if name in SUBRESOURCES)
    resource = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    if inner:
        resource += "?" + "&".join(_pair(name, value) for name, value in inner)
    headers = {name: value for name, value in request.headers.items() if name.startswith("x-oss-")}
    to_sign = "\n".join(
        [
            request.method,
            request.headers.get("content-md5", ""),
            request.headers.get("content-type", ""),
            date,
            "".join(f"{name}:{headers[name]}\n" for name in sorted(headers)) + resource,
        ]
    )
    _compare(
        base64.b64encode(hmac.new(key.secret.encode(), to_sign.encode(), hashlib.sha1).digest()).decode(),
        given,
        to_sign,
    )


def _check_time(moment: str, lifetime: int | None) -> None:
    try:
        started = calendar.timegm(time.strptime(moment, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise OssError(403, "AccessDenied", "no valid x-oss-date") from None
    if lifetime is None and abs(started - time.time()) > SKEW_SECONDS:
        raise OssError(403, "RequestTimeTooSkewed", "The difference between the request time and now is too large.")
    if lifetime is not None and not 1 <= lifetime <= 604800:
        raise OssError(400, "InvalidArgument", "x-oss-expires must be 1 to 604800")
    if lifetime is not None and started + lifetime < time.time():
        raise OssError(403, "AccessDenied", "Request has expired.")


def _known(keys: dict[str, Key], key_id: str, token: str | None) -> Key:
    key = keys.get(key_id)
    if key is None or (key.token and not token):
        raise OssError(403, "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records.")
    if token != key.token:
        raise OssError(403, "InvalidSecurityToken", "The security token you provided is invalid.")
    if key.expires is not None and key.expires < time.time():
        raise OssError(403, "SecurityTokenExpired", "The security token you provided has expired.")
    return key


def _compare(wanted: str, given: str, signed: str) -> None:
    if not hmac.compare_digest(wanted, given):
        raise OssError(403, "SignatureDoesNotMatch", f"The signature does not match; the server signed {signed!r}")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _pair(name: str, value: str) -> str:
    return f"{name}={value}" if value else name
