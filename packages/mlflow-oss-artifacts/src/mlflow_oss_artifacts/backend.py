"""The primitives of the transfer engine, said in OSS's operations. Nothing here knows an SDK."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from mlflow_oss_artifacts.credentials import CredentialSource, credential_source
from mlflow_oss_artifacts.driver import Driver, Entry, Headers, SentPart, open_driver
from mlflow_oss_artifacts.errors import EXPIRED, OSS_ERRORS, DamagedTransferError, delay_of, problem_of
from mlflow_oss_artifacts.settings import OssSettings
from mlflow_oss_artifacts.transport import Body
from mlflow_plugkit.artifacts.backend import (
    MEBIBYTE,
    DeleteFailure,
    Digest,
    MultipartBackend,
    Page,
    Part,
    PendingUpload,
    PresignedRequest,
    PresigningBackend,
    Source,
    StoredObject,
)
from mlflow_plugkit.artifacts.checksums import digest_of, hasher
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.uri import join_path

PAGE = 1000
"""Objects in a page of a listing, the most that OSS gives; oss2 asks for 100 where one does not say."""
IN_MEMORY = MEBIBYTE
"""Bytes up to which a body is sent from memory instead of from an open file."""
CRC64 = "x-oss-hash-crc64ecma"
_LOGGERS = (
    "mlflow_oss_artifacts",
    "urllib3.connectionpool",
    "alibabacloud_oss_v2",
    "oss2",
    *(f"oss2.{name}" for name in ("api", "auth", "credentials", "http", "iterators", "resumable", "utils")),
)
"""oss2 logs signatures and security tokens at DEBUG; a filter sits on each logger, for it is not inherited."""


class OssBackend(MultipartBackend, PresigningBackend):
    """A bucket, or what lies below a prefix of it.

    Each upload is checked by the CRC64 that OSS computes of what it received, a whole one also by the MD5 that
    OSS compares before it stores anything; each download by the CRC64 that OSS keeps.
    """

    errors = OSS_ERRORS
    checksum = "crc64"

    def __init__(self, settings: OssSettings) -> None:
        self._settings = settings
        self.part_size = settings.part_size
        self.multipart_threshold = settings.multipart_threshold
        self.parallel_transfers = settings.parallel
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[Driver, CredentialSource] | None = None

    def _open(self) -> tuple[Driver, CredentialSource]:
        with self._lock:
            if self._opened is None:
                credentials = credential_source(self._settings, _hide)
                self._opened = open_driver(self._settings, credentials), credentials
            return self._opened

    @property
    def _driver(self) -> Driver:
        return (self._opened or self._open())[0]

    @property
    def root(self) -> str:
        return f"oss://{join_path(self._settings.bucket, self._settings.prefix)}"

    def secrets(self) -> Sequence[str]:
        fetched = self._opened[1].secrets() if self._opened else ()
        return (*self._settings.secrets(), *fetched)

    def close(self) -> None:
        opened = self._opened
        self._reset()
        if opened:
            opened[0].close()

    def retry_delay(self, error: BaseException) -> float | None:
        problem = problem_of(error)
        if problem.code in EXPIRED and self._opened and self._opened[1].renewable:
            self._opened[1].forget()
            return 0.0
        return delay_of(problem)

    def head(self, path: str) -> StoredObject | None:
        try:
            answer = self._driver.head(self._key(path))
        except Exception as exc:
            if _is_missing_object(exc):
                return None
            raise
        return _stored(path, int(answer["Content-Length"]), answer)

    def list_page(self, path: str, token: str | None) -> Page:
        listing = self._driver.list(self._folder(path), "/", token, PAGE)
        objects = [self._listed(entry) for entry in listing.entries]
        folders = [self._path(key).removesuffix("/") for key in listing.folders]
        return Page(objects, folders, listing.next_token)

    def list_all(self, path: str) -> Iterator[StoredObject]:
        """All below a path in pages of a flat listing: one request for 1,000 objects, however many folders."""
        if path and (found := self.head(path)):
            yield found
        token: str | None = None
        while True:
            listing = self._driver.list(self._folder(path), "", token, PAGE)
            yield from (self._listed(entry) for entry in listing.entries)
            token = listing.next_token
            if token is None:
                return

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        if length == 0:
            return
        headers = {"If-Match": version} if version else {}
        if start or length is not None:
            end = "" if length is None else start + length - 1
            # Without it OSS answers a range that it does not like with the whole object.
            headers |= {"Range": f"bytes={start}-{end}", "x-oss-range-behavior": "standard"}
        status, answer, chunks = self._driver.get(self._key(path), headers)
        if "Range" in headers and status != 206:
            raise DamagedTransferError(f"OSS answered HTTP {status} to a request for a range of {path!r}")
        yield from _checked(path, answer, chunks) if _is_whole(answer) else chunks

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        headers = self._new_object(content_type) | {"Content-MD5": _md5(source)}
        with _body(source) as body:
            answer = self._driver.put(self._key(path), body, headers)
        return _stored(path, source.size or 0, answer)

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        deleted = {self._path(key) for key in self._driver.delete_many([self._key(path) for path in paths])}
        # The answer leaves out what could not be deleted, and does not say why: asking for one object does.
        failures = (self._delete(path) for path in paths if path not in deleted)
        return [failure for failure in failures if failure]

    def create_multipart(self, path: str, content_type: str | None, digest: Digest | None) -> str:
        return self._driver.begin(self._key(path), self._new_object(content_type))

    def put_part(self, path: str, upload_id: str, number: int, source: Source) -> Part:
        digest = digest_of(source, "crc64")
        with _body(source) as body:
            answer = self._driver.put_part(self._key(path), upload_id, number, body, {})
        arrived = _digest(answer)
        if arrived and arrived != digest:
            raise DamagedTransferError(
                f"part {number} of {path!r} arrived with CRC64 {arrived.value}, not {digest.value}"
            )
        return Part(number, answer["ETag"], source.size or 0)

    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[Part]) -> StoredObject | None:
        sent = [SentPart(part.number, part.receipt) for part in parts]
        answer = self._driver.complete(self._key(path), upload_id, sent)
        return _stored(path, sum(part.size for part in parts), answer)

    def abort_multipart(self, path: str, upload_id: str) -> None:
        try:
            self._driver.abort(self._key(path), upload_id)
        except Exception as exc:
            if problem_of(exc).status != 404:
                raise

    def list_parts(self, path: str, upload_id: str) -> Sequence[Part] | None:
        try:
            return [Part(p.number, _quoted(p.etag), p.size) for p in self._driver.parts(self._key(path), upload_id)]
        except Exception as exc:
            if problem_of(exc).code == "NoSuchUpload":
                return None
            raise

    def list_multiparts(self) -> Sequence[PendingUpload]:
        begun = self._driver.uploads(self._folder(""))
        return [PendingUpload(self._path(each.key), each.upload_id, each.started) for each in begun]

    def presign_get(self, path: str, seconds: int) -> PresignedRequest:
        return PresignedRequest(self._driver.presign("GET", self._key(path), seconds, {}, {}))

    def presign_put(self, path: str, seconds: int, content_type: str | None) -> PresignedRequest:
        headers = self._new_object(content_type)
        url = self._driver.presign("PUT", self._key(path), seconds, headers, {})
        return PresignedRequest(url, tuple(headers.items()))

    def presign_part(self, path: str, upload_id: str, number: int, seconds: int) -> PresignedRequest:
        query = {"uploadId": upload_id, "partNumber": str(number)}
        return PresignedRequest(self._driver.presign("PUT", self._key(path), seconds, {}, query))

    def _delete(self, path: str) -> DeleteFailure | None:
        try:
            self._driver.delete(self._key(path))
        except Exception as exc:
            problem = problem_of(exc)
            if not problem.code or delay_of(problem) is not None:
                raise
            return DeleteFailure(path, problem.code, getattr(exc, "message", "") or type(exc).__name__)
        return None

    def _new_object(self, content_type: str | None) -> dict[str, str]:
        given = {
            "Content-Type": content_type or "application/octet-stream",
            "x-oss-storage-class": self._settings.storage_class,
            "x-oss-server-side-encryption": self._settings.encryption,
            "x-oss-server-side-encryption-key-id": self._settings.kms_key_id,
        }
        return {name: value for name, value in given.items() if value}

    def _listed(self, entry: Entry) -> StoredObject:
        """Listings hold no CRC64; the answer to a read of the whole object does."""
        small = entry.size < self.multipart_threshold
        return StoredObject(self._path(entry.key), entry.size, _quoted(entry.etag), verified_by_read=small)

    def _key(self, path: str) -> str:
        return f"{self._settings.prefix}/{path}" if self._settings.prefix else path

    def _folder(self, path: str) -> str:
        """The prefix of all keys below a path, with its slash; "" for the whole bucket."""
        inside = join_path(self._settings.prefix, path)
        return f"{inside}/" if inside else ""

    def _path(self, key: str) -> str:
        return key[len(self._folder("")) :]


def _hide(secrets: tuple[str, ...]) -> None:
    for name in _LOGGERS:
        get_logger(name, secrets)


def _is_missing_object(exc: Exception) -> bool:
    """A 404 that is not about the bucket; the answer to HEAD may have no code at all."""
    problem = problem_of(exc)
    return problem.status == 404 and problem.code != "NoSuchBucket"


def _stored(path: str, size: int, answer: Headers) -> StoredObject:
    return StoredObject(path, size, answer.get("ETag"), _digest(answer))


def _digest(answer: Headers) -> Digest | None:
    """The CRC64 that OSS has of an object or a part; it sends it in decimal."""
    with suppress(KeyError, ValueError):
        return Digest("crc64", f"{int(answer[CRC64]):016x}")
    return None


def _quoted(etag: str) -> str:
    """An ETag as HTTP writes it; oss2 takes the quotation marks off in listings."""
    return f'"{etag.strip(chr(34))}"'


def _md5(source: Source) -> str:
    return base64.b64encode(bytes.fromhex(digest_of(source, "md5").value)).decode()


@contextmanager
def _body(source: Source) -> Iterator[Body]:
    if source.size is not None and source.size <= IN_MEMORY:
        yield source.read()
        return
    with source.open() as reader:
        yield reader


def _is_whole(answer: Headers) -> bool:
    """Whether the answer holds the whole object, whose checksum it then states."""
    span, _, total = answer.get("Content-Range", "").removeprefix("bytes ").partition("/")
    return not total or (total.isdigit() and span == f"0-{int(total) - 1}")


def _checked(path: str, answer: Headers, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks; an error at their end where they are not what OSS keeps."""
    expected, total = _digest(answer), hasher("crc64")
    for chunk in chunks:
        total.update(chunk)
        yield chunk
    if expected and total.hexdigest() != expected.value:
        raise DamagedTransferError(f"{path!r} was read with CRC64 {total.hexdigest()}; OSS keeps {expected.value}")
