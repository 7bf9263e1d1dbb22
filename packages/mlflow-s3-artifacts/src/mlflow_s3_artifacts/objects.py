"""What S3's answers say about an object, and which errors may pass: pure functions over headers and exceptions."""

from __future__ import annotations

import base64
import binascii
import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

from mlflow_plugkit.artifacts.backend import Digest, Source, StoredObject
from mlflow_plugkit.artifacts.checksums import digest_of
from mlflow_plugkit.artifacts.retries import StoredDamagedError
from mlflow_s3_artifacts.errors import TRANSIENT, TRANSIENT_STATUS, status_of

#: User metadata that holds the CRC32C of the whole content, as 8 hexadecimal digits.
CRC_METADATA = "plugkit-crc32c"
MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')
_CRC = re.compile(r"[0-9a-f]{8}")


def stored_object(path: str, headers: Mapping[str, str]) -> StoredObject:
    """The object that the headers (names in lower case) of a HEAD or whole GET describe."""
    return StoredObject(path, int(headers["content-length"]), headers.get("etag"), digest_in(headers))


def digest_in(headers: Mapping[str, str]) -> Digest | None:
    """The content's checksum: our own metadata, else a checksum header for the whole object, else an MD5 ETag."""
    own = headers.get(f"x-amz-meta-{CRC_METADATA}", "").lower()
    if _CRC.fullmatch(own):
        return Digest("crc32c", own)
    whole = "-" not in headers.get("etag", "") or headers.get("x-amz-checksum-type") == "FULL_OBJECT"
    crc = _from_base64(headers.get("x-amz-checksum-crc32c", ""))
    if whole and crc:
        return Digest("crc32c", crc)
    md5 = md5_of_etag(headers)
    return Digest("md5", md5) if md5 else None


def md5_of_etag(headers: Mapping[str, str]) -> str | None:
    """The content's MD5 where the ETag is one: not of multipart uploads, nor under SSE-KMS and SSE-C.

    Amazon S3 API reference, "Object", on ETag.
    """
    encryption = headers.get("x-amz-server-side-encryption", "")
    encrypted = encryption.startswith("aws:") or "x-amz-server-side-encryption-customer-algorithm" in headers
    match = MD5_ETAG.fullmatch(headers.get("etag", ""))
    return match[1] if match and not encrypted else None


def _from_base64(text: str) -> str | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == 4 else None


def crc_header(crc: str) -> str:
    """A CRC32C in hexadecimal as the `x-amz-checksum-crc32c` header writes it."""
    return base64.b64encode(bytes.fromhex(crc)).decode()


def md5_header(source: Source) -> str:
    """The `Content-MD5` of a source."""
    return base64.b64encode(bytes.fromhex(digest_of(source, "md5").value)).decode()


def check_answer(path: str, source: Source, headers: Mapping[str, str]) -> None:
    """Compare the answer to an upload with what was sent, where the service has not said that it checked.

    Raises:
        StoredDamagedError: the ETag is the MD5 of something else.
    """
    if "x-amz-checksum-crc32c" not in headers and is_other_content(source, headers):
        raise StoredDamagedError(f"the service stored something else as {path!r} than was sent", path)


def is_other_content(source: Source, headers: Mapping[str, str]) -> bool:
    """Whether the ETag is the MD5 of something else; False where it is no MD5."""
    stored = md5_of_etag(headers) if source.rewindable else None
    return stored is not None and stored != digest_of(source, "md5").value


def retry_delay(error: BaseException) -> float | None:
    """Seconds that the service asks to wait, 0.0 for any other passing error, None for one that stays."""
    from botocore import exceptions as core
    from botocore.parsers import ResponseParserError

    if isinstance(error, core.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in TRANSIENT or status_of(error) in TRANSIENT_STATUS:
            return _retry_after(error.response)
        return None
    if isinstance(error, (core.SSLError, core.ProxyConnectionError)):
        return None
    passing = (core.HTTPClientError, core.ConnectionError, core.IncompleteReadError, ResponseParserError)
    return 0.0 if isinstance(error, passing) else None


def _retry_after(response: Any) -> float:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
