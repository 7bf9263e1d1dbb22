"""The error table of OSS, and which errors are worth another attempt.

Codes: Alibaba Cloud OSS, "Error responses" (the `Code` of the XML answer). Both SDKs' exceptions are read by
the attributes that they share, so that neither SDK is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_plugkit.errors import ErrorRow, ErrorTable

DAMAGED = "DamagedTransfer"
"""This package's own code: a checksum that OSS answered is not that of the bytes on this side."""


class DamagedTransferError(Exception):
    """What was sent is not what OSS received, or the other way round: CRC64 differs."""

    code = DAMAGED


@dataclass(frozen=True)
class Problem:
    """What an exception says: HTTP status (0: none came), OSS's code, seconds to wait, the cause's classes."""

    status: int
    code: str
    retry_after: float | None
    classes: tuple[str, ...]


def problem_of(exc: BaseException) -> Problem:
    """Read an exception of either SDK, of requests or of this package."""
    status, code, wait = 0, "", None
    innermost = exc
    for innermost in _unwrapped(exc):
        number: Any = getattr(innermost, "status_code", None) or getattr(innermost, "status", None)
        if isinstance(number, int) and number > 0:
            status = number
        name = getattr(innermost, "code", None)
        # v2 says BadErrorResponse where there is no XML to read a code from, as in the answer to HEAD.
        if isinstance(name, str) and name and name != "BadErrorResponse":
            code = name
        headers = getattr(innermost, "headers", None)
        if headers is not None and status:
            wait = _seconds(headers.get("Retry-After"))
    classes = tuple(f"{cls.__module__}.{cls.__qualname__}" for cls in type(innermost).__mro__)
    return Problem(status, code, wait, classes)


def _unwrapped(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what it wraps: `unwrap()` in alibabacloud-oss-v2, `exception` in oss2's RequestError."""
    for _ in range(5):
        yield exc
        unwrap = getattr(exc, "unwrap", None)
        inner = unwrap() if callable(unwrap) else getattr(exc, "exception", None)
        if not isinstance(inner, BaseException):
            return
        exc = inner


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None


def _code_of(exc: BaseException) -> str | None:
    problem = problem_of(exc)
    if problem.code in _CODES:
        return problem.code
    if problem.status:
        return f"HTTP {problem.status}" if f"HTTP {problem.status}" in _CODES else f"HTTP {problem.status // 100}xx"
    return next((name for name in problem.classes if name in _CODES), None)


_KEYS = "Check MLFLOW_OSS_KEY_ID and MLFLOW_OSS_KEY_SECRET (or OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET)"
_TOKEN = "Renew the STS token; MLFLOW_OSS_CREDENTIALS_FILE or a RAM role keep it fresh"  # noqa: S105 # a hint
_LATER = "Try again later"

_ROWS = [
    ErrorRow("NoSuchKey", "RESOURCE_DOES_NOT_EXIST", "list_artifacts shows what is there."),
    ErrorRow(
        "NoSuchBucket", "RESOURCE_DOES_NOT_EXIST", "Check the bucket's name and that the endpoint is of its region."
    ),
    ErrorRow("NoSuchUpload", "RESOURCE_DOES_NOT_EXIST", "The upload was completed or aborted already; begin it anew."),
    ErrorRow(
        "AccessDenied",
        "PERMISSION_DENIED",
        "Grant the user or role the OSS actions that the README lists, and "
        "check that the endpoint is of the bucket's region.",
    ),
    ErrorRow("UserDisable", "PERMISSION_DENIED", "The account is disabled or has an overdue payment."),
    ErrorRow("FileImmutable", "PERMISSION_DENIED", "A retention policy of the bucket protects the object."),
    ErrorRow("ObjectWormed", "PERMISSION_DENIED", "A retention policy protects the object."),
    ErrorRow("InvalidAccessKeyId", "UNAUTHENTICATED", f"{_KEYS}; temporary keys need their OSS_SESSION_TOKEN."),
    ErrorRow("SignatureDoesNotMatch", "UNAUTHENTICATED", f"{_KEYS}, and that OSS_REGION is the bucket's region."),
    ErrorRow("SecurityTokenExpired", "UNAUTHENTICATED", f"{_TOKEN}."),
    ErrorRow("InvalidSecurityToken", "UNAUTHENTICATED", f"{_TOKEN}."),
    ErrorRow("SecurityTokenMalformed", "UNAUTHENTICATED", f"{_TOKEN}."),
    ErrorRow(
        "RequestTimeTooSkewed", "UNAUTHENTICATED", "This machine's clock is more than 15 minutes wrong: set it by NTP."
    ),
    ErrorRow("RequestExpired", "UNAUTHENTICATED", "This machine's clock is wrong: set it by NTP."),
    ErrorRow("InvalidBucketName", "INVALID_PARAMETER_VALUE", "3 to 63 lower-case letters, digits and hyphens."),
    ErrorRow("InvalidObjectName", "INVALID_PARAMETER_VALUE", "An object's name has at most 1,023 bytes."),
    ErrorRow("InvalidArgument", "INVALID_PARAMETER_VALUE"),
    ErrorRow("InvalidRange", "INVALID_STATE", "The object changed while it was being read; try again."),
    ErrorRow("EntityTooLarge", "INVALID_PARAMETER_VALUE", "Set a smaller MLFLOW_OSS_PART_SIZE or threshold."),
    ErrorRow("EntityTooSmall", "INVALID_PARAMETER_VALUE", "Parts other than the last have at least 100 KiB."),
    ErrorRow("InvalidPart", "INVALID_PARAMETER_VALUE", "A part is missing or another than was uploaded; begin anew."),
    ErrorRow("InvalidPartOrder", "INVALID_PARAMETER_VALUE", "Parts must come in the order of their numbers."),
    ErrorRow("InvalidDigest", "DATA_LOSS", "The content was damaged on its way; nothing was stored. Try again."),
    ErrorRow(DAMAGED, "DATA_LOSS", "The content was damaged on its way. Try again."),
    ErrorRow("PreconditionFailed", "RESOURCE_CONFLICT", "The object was replaced while it was being read; try again."),
    ErrorRow("FileAlreadyExists", "RESOURCE_ALREADY_EXISTS", "The bucket forbids to overwrite objects."),
    ErrorRow("InvalidObjectState", "INVALID_STATE", "The object is in an archive storage class: restore it first."),
    ErrorRow("KmsServiceNotEnabled", "INVALID_STATE", "Activate KMS, or use MLFLOW_OSS_ENCRYPTION=AES256."),
    ErrorRow("InvalidEncryptionAlgorithmError", "INVALID_PARAMETER_VALUE", "AES256, KMS and SM4 are there."),
    ErrorRow("MethodNotAllowed", "INVALID_STATE", "The object's kind does not allow this."),
    ErrorRow("NotImplemented", "NOT_IMPLEMENTED", "This endpoint does not offer the operation."),
    ErrorRow("QpsLimitExceeded", "REQUEST_LIMIT_EXCEEDED", f"{_LATER}, or set a smaller MLFLOW_OSS_PARALLEL."),
    ErrorRow("TotalQpsLimitExceeded", "REQUEST_LIMIT_EXCEEDED", f"{_LATER}, or set a smaller MLFLOW_OSS_PARALLEL."),
    ErrorRow("DownloadTrafficRateLimitExceeded", "REQUEST_LIMIT_EXCEEDED", f"{_LATER}."),
    ErrorRow("UploadTrafficRateLimitExceeded", "REQUEST_LIMIT_EXCEEDED", f"{_LATER}."),
    ErrorRow("RequestTimeout", "TEMPORARILY_UNAVAILABLE", f"{_LATER}; the connection is slow."),
    ErrorRow("ServiceUnavailable", "TEMPORARILY_UNAVAILABLE", f"{_LATER}."),
    ErrorRow("InternalError", "TEMPORARILY_UNAVAILABLE", f"{_LATER}."),
    ErrorRow("HTTP 401", "UNAUTHENTICATED", f"{_KEYS}."),
    ErrorRow(
        "HTTP 403",
        "PERMISSION_DENIED",
        "Grant the user or role the OSS actions that the README lists; this is "
        "also the answer to a wrong key where an answer has no body.",
    ),
    ErrorRow("HTTP 404", "RESOURCE_DOES_NOT_EXIST", "Check the bucket, the path and the endpoint."),
    ErrorRow("HTTP 412", "RESOURCE_CONFLICT", "The object was replaced while it was being read; try again."),
    ErrorRow("HTTP 429", "REQUEST_LIMIT_EXCEEDED", f"{_LATER}."),
    ErrorRow("HTTP 3xx", "INVALID_PARAMETER_VALUE", "The endpoint redirects; give the bucket's own endpoint."),
    ErrorRow("HTTP 4xx", "BAD_REQUEST", "Check that MLFLOW_OSS_ENDPOINT_URL is an OSS endpoint."),
    ErrorRow("HTTP 5xx", "TEMPORARILY_UNAVAILABLE", f"{_LATER}."),
    ErrorRow(
        "requests.exceptions.SSLError",
        "INVALID_PARAMETER_VALUE",
        "For an own certificate authority set MLFLOW_OSS_CA_FILE.",
    ),
    ErrorRow(
        "requests.exceptions.Timeout", "TEMPORARILY_UNAVAILABLE", "Raise MLFLOW_OSS_READ_TIMEOUT, or check the network."
    ),
    ErrorRow(
        "requests.exceptions.TooManyRedirects",
        "INVALID_PARAMETER_VALUE",
        "The endpoint redirects; give the bucket's own.",
    ),
    ErrorRow(
        "requests.exceptions.RequestException",
        "TEMPORARILY_UNAVAILABLE",
        "Check MLFLOW_OSS_ENDPOINT_URL and the network.",
    ),
    ErrorRow("urllib3.exceptions.HTTPError", "TEMPORARILY_UNAVAILABLE", "The connection broke; try again."),
    ErrorRow(
        "xml.etree.ElementTree.ParseError",
        "TEMPORARILY_UNAVAILABLE",
        "The answer was no XML; is the endpoint one of OSS?",
    ),
]
_CODES = frozenset(row.match for row in _ROWS)

OSS_ERRORS = ErrorTable("Alibaba OSS", _ROWS, code_of=_code_of)

EXPIRED = frozenset({"SecurityTokenExpired", "InvalidSecurityToken", "SecurityTokenMalformed", "InvalidAccessKeyId"})
"""Codes after which renewed temporary credentials may help."""

_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_RETRIED_CODES = frozenset(
    {
        DAMAGED, "InvalidDigest", "RequestTimeout", "QpsLimitExceeded", "TotalQpsLimitExceeded", "InternalError",
        "DownloadTrafficRateLimitExceeded", "UploadTrafficRateLimitExceeded", "ServiceUnavailable",
    }
)  # fmt: skip
_NOT_RETRIED = frozenset(
    f"requests.exceptions.{name}"
    for name in ("SSLError", "TooManyRedirects", "InvalidURL", "MissingSchema", "InvalidHeader")
)
_RETRIED_CLASSES = frozenset(
    {
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "requests.exceptions.ChunkedEncodingError",
        "urllib3.exceptions.HTTPError",
        "xml.etree.ElementTree.ParseError",
    }
)


def delay_of(problem: Problem) -> float | None:
    """Seconds that OSS asks to wait, 0.0 for the engine's own back-off, None where another attempt cannot help."""
    if problem.status in _RETRIED_STATUS or problem.code in _RETRIED_CODES:
        return problem.retry_after or 0.0
    if problem.status or _NOT_RETRIED.intersection(problem.classes):
        return None
    return 0.0 if _RETRIED_CLASSES.intersection(problem.classes) else None
