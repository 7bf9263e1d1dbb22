"""The SDK's place: what the backend asks of a driver, in plain data.

`driver_oss2` and `driver_v2` are the two modules that import an SDK. A driver signs, sends and parses,
once: no retries, no checksums, no threads. It raises its SDK's errors, which `errors.py` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlflow_plugkit.requirements import require

if TYPE_CHECKING:
    from mlflow_oss_artifacts.credentials import CredentialSource
    from mlflow_oss_artifacts.settings import OssSettings
    from mlflow_oss_artifacts.transport import Body

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """An object in a listing: key, bytes, ETag."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Listing:
    """A page of ListObjectsV2; folders end with a slash."""

    entries: Sequence[Entry]
    folders: Sequence[str]
    next_token: str | None


@dataclass(frozen=True)
class SentPart:
    """A part that OSS holds: number, ETag, bytes."""

    number: int
    etag: str
    size: int = 0


@dataclass(frozen=True)
class Begun:
    """An unfinished multipart upload: key, upload ID, start in seconds since the epoch."""

    key: str
    upload_id: str
    started: float


class Driver(Protocol):
    """One bucket through one SDK. Header names in answers are case-insensitive."""

    def put(self, key: str, body: Body, headers: Headers) -> Headers:
        """PutObject; the answer's headers."""

    def get(self, key: str, headers: Headers) -> tuple[int, Headers, Iterator[bytes]]:
        """GetObject: status, headers, and the content in chunks, which closes the answer at its end."""

    def head(self, key: str) -> Headers:
        """HeadObject."""

    def list(self, prefix: str, delimiter: str, token: str | None, count: int) -> Listing:
        """ListObjectsV2."""

    def delete(self, key: str) -> None:
        """DeleteObject."""

    def delete_many(self, keys: Sequence[str]) -> Iterable[str]:
        """DeleteMultipleObjects, not quiet; the keys that OSS says it deleted."""

    def begin(self, key: str, headers: Headers) -> str:
        """InitiateMultipartUpload; the upload's ID."""

    def put_part(self, key: str, upload_id: str, number: int, body: Body, headers: Headers) -> Headers:
        """UploadPart."""

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart]) -> Headers:
        """CompleteMultipartUpload."""

    def abort(self, key: str, upload_id: str) -> None:
        """AbortMultipartUpload."""

    def parts(self, key: str, upload_id: str) -> Iterator[SentPart]:
        """ListParts, all pages."""

    def uploads(self, prefix: str) -> Iterator[Begun]:
        """ListMultipartUploads, all pages."""

    def presign(self, method: str, key: str, seconds: int, headers: Headers, query: Mapping[str, str]) -> str:
        """A URL that may be used for `seconds`, with exactly these headers and query parameters."""

    def close(self) -> None:
        """Close the connections."""


def open_driver(settings: OssSettings, credentials: CredentialSource) -> Driver:
    """The driver that `settings.sdk` names.

    Raises:
        MlflowException: `FEATURE_DISABLED`: the SDK is not installed.
    """
    if settings.sdk == "v2":
        require("alibabacloud_oss_v2", distribution="mlflow-oss-artifacts", extra="v2")
        from mlflow_oss_artifacts.driver_v2 import V2Driver

        return V2Driver(settings, credentials)
    require("oss2", distribution="mlflow-oss-artifacts")
    from mlflow_oss_artifacts.driver_oss2 import Oss2Driver

    return Oss2Driver(settings, credentials)
