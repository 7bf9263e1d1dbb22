"""The S3 backend: boto3 for control and, in this class, for content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

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
from mlflow_plugkit.artifacts.checksums import digest_of
from mlflow_s3_artifacts import objects, wire
from mlflow_s3_artifacts.client import Connection, connect, secrets_of
from mlflow_s3_artifacts.errors import S3_ERRORS
from mlflow_s3_artifacts.settings import S3Settings

#: Uploads up to this many bytes are held in memory; larger ones are read from their file while they are sent.
SMALL = MEBIBYTE


class S3Backend(MultipartBackend, PresigningBackend):
    """Objects of one bucket below one prefix.

    Args:
        settings: the location and its options. Nothing is connected to before the first operation.
    """

    errors = S3_ERRORS
    checksum = "crc32c"

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.part_size = settings.part_size * MEBIBYTE
        self.multipart_threshold = settings.multipart_threshold * MEBIBYTE
        self.parallel_transfers = settings.parallel
        self.retry_attempts = settings.retries
        self._extra = settings.extra_args
        self._prefix = f"{settings.prefix}/" if settings.prefix else ""
        self._connection: Connection | None = None
        self._digests: dict[str, Digest] = {}
        # Under SSE-KMS an ETag only looks like an MD5, and a listing does not tell. A download that was misled is
        # begun anew with what `head` says, which is remembered.
        self._md5_etags = not str(self._extra.get("ServerSideEncryption", "")).startswith("aws:")

    @property
    def root(self) -> str:
        return self.settings.root

    @property
    def connection(self) -> Connection:
        """The shared connection, made on first use."""
        if self._connection is None:
            self._connection = connect(self.settings)
        return self._connection

    def secrets(self) -> Sequence[str]:
        return secrets_of(self._connection.credentials()) if self._connection else ()

    def close(self) -> None:
        self._connection = None

    def retry_delay(self, error: BaseException) -> float | None:
        return objects.retry_delay(error)

    def key(self, path: str) -> str:
        """The object's key in the bucket."""
        return f"{self._prefix}{path}"

    def head(self, path: str) -> StoredObject | None:
        from botocore.exceptions import ClientError

        try:
            answer = self.connection.client.head_object(**self._object(path), ChecksumMode="ENABLED")
        except ClientError as exc:
            if exc.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
        headers = _headers(answer)
        if headers.get("x-amz-server-side-encryption", "").startswith("aws:"):
            self._md5_etags = False
        return objects.stored_object(path, headers)

    def list_page(self, path: str, token: str | None) -> Page:
        return self._list(self.key(f"{path}/") if path else self._prefix, token, {"Delimiter": "/"})

    def list_all(self, path: str) -> Iterator[StoredObject]:
        if path and (here := self.head(path)):
            yield here
        token: str | None = None
        while True:
            page = self._list(self.key(f"{path}/") if path else self._prefix, token, {})
            yield from page.objects
            token = page.next_token
            if token is None:
                return

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        if length == 0:
            return
        arguments = self._object(path)
        if start or length is not None:
            arguments["Range"] = f"bytes={start}-" + (str(start + length - 1) if length is not None else "")
        if version:
            arguments["IfMatch"] = version
        with closing(self.connection.client.get_object(**arguments)["Body"]) as body:
            yield from body.iter_chunks(MEBIBYTE)

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        arguments = self._new_object(path, content_type, digest)
        if self.settings.upload_check == "crc32c" and digest:
            arguments["ChecksumCRC32C"] = objects.crc_header(digest.value)
        elif self.settings.upload_check == "md5":
            arguments["ContentMD5"] = objects.md5_header(source)
        headers = self._send(arguments, source)
        if self.settings.upload_check != "off":
            objects.check_answer(path, source, headers)
        return StoredObject(path, source.size or 0, headers.get("etag"))

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        failures = self._delete(paths)
        folders = sorted(_folders_of(paths), reverse=True) if self.settings.endpoint else []
        for start in range(0, len(folders), self.delete_batch):
            # SeaweedFS goes on listing a folder after its last object; deleting the folder's own key ends that.
            self._delete(folders[start : start + self.delete_batch])
        return failures

    def _delete(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        keys = {self.key(path): path for path in paths}
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self.connection.client.delete_objects(**self._bucket(), Delete=request)
        return [
            DeleteFailure(keys.get(e.get("Key", ""), e.get("Key", "")), e.get("Code", ""), e.get("Message", ""))
            for e in answer.get("Errors", [])
            if e.get("Code") != "NoSuchKey"
        ]

    def create_multipart(self, path: str, content_type: str | None, digest: Digest | None) -> str:
        arguments = self._new_object(path, content_type, digest)
        checked = digest is not None and self.settings.upload_check == "crc32c"
        if checked:
            arguments |= {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
        upload_id = str(self.connection.client.create_multipart_upload(**arguments)["UploadId"])
        if checked and digest:
            self._digests[upload_id] = digest
        return upload_id

    def put_part(self, path: str, upload_id: str, number: int, source: Source) -> Part:
        arguments = self._part(path, upload_id, number)
        crc = ""
        if upload_id in self._digests:
            crc = objects.crc_header(digest_of(source, "crc32c").value)
            arguments["ChecksumCRC32C"] = crc
        elif self.settings.upload_check != "off":
            arguments["ContentMD5"] = objects.md5_header(source)
        headers = wire.upload(self.connection, "upload_part", arguments, source)
        if crc:
            objects.check_answer(path, source, headers)
        return Part(number, f"{headers.get('etag', '')} {crc}".rstrip(), source.size or 0)

    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[Part]) -> StoredObject | None:
        arguments = self._object(path) | {"UploadId": upload_id, "MultipartUpload": {"Parts": _receipts(parts)}}
        if digest := self._digests.get(upload_id):
            arguments |= {"ChecksumCRC32C": objects.crc_header(digest.value), "ChecksumType": "FULL_OBJECT"}
        answer = self.connection.client.complete_multipart_upload(**arguments)
        self._digests.pop(upload_id, None)
        size = sum(part.size for part in parts)
        return StoredObject(path, size, answer.get("ETag")) if size else None

    def abort_multipart(self, path: str, upload_id: str) -> None:
        from botocore.exceptions import ClientError

        self._digests.pop(upload_id, None)
        try:
            self.connection.client.abort_multipart_upload(**self._object(path), UploadId=upload_id)
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in ("NoSuchUpload", "404"):
                raise

    def list_parts(self, path: str, upload_id: str) -> Sequence[Part] | None:
        from botocore.exceptions import ClientError

        pages = self.connection.client.get_paginator("list_parts").paginate(**self._object(path), UploadId=upload_id)
        try:
            found = [part for page in pages for part in page.get("Parts", [])]
        except ClientError as exc:
            if exc.response["Error"]["Code"] in ("NoSuchUpload", "404"):
                return None
            raise
        return [
            Part(p["PartNumber"], f"{p['ETag']} {p.get('ChecksumCRC32C', '')}".rstrip(), p.get("Size", 0))
            for p in found
        ]

    def list_multiparts(self) -> Iterable[PendingUpload]:
        paginator = self.connection.client.get_paginator("list_multipart_uploads")
        for page in paginator.paginate(**self._bucket(), Prefix=self._prefix):
            for upload in page.get("Uploads", []):
                path = upload["Key"][len(self._prefix) :]
                yield PendingUpload(path, upload["UploadId"], upload["Initiated"].timestamp())

    def presign_get(self, path: str, seconds: int) -> PresignedRequest:
        return self._presign("get_object", self._object(path), seconds)

    def presign_put(self, path: str, seconds: int, content_type: str | None) -> PresignedRequest:
        return self._presign("put_object", self._new_object(path, content_type, None), seconds)

    def presign_part(self, path: str, upload_id: str, number: int, seconds: int) -> PresignedRequest:
        return self._presign("upload_part", self._part(path, upload_id, number), seconds)

    def _presign(self, operation: str, arguments: dict[str, Any], seconds: int) -> PresignedRequest:
        headers = wire.signed_headers(self.connection, operation, arguments)
        return PresignedRequest(wire.presigned(self.connection, operation, arguments, seconds), tuple(headers.items()))

    def _send(self, arguments: dict[str, Any], source: Source) -> dict[str, str]:
        """Store one object whole; the headers of the answer."""
        if source.size is not None and source.size > SMALL:
            return dict(wire.upload(self.connection, "put_object", arguments, source))
        return _headers(self.connection.client.put_object(**arguments, Body=source.read()))

    def _list(self, prefix: str, token: str | None, more: dict[str, str]) -> Page:
        arguments = self._bucket() | {"Prefix": prefix, "MaxKeys": 1000} | more
        if token:
            arguments["ContinuationToken"] = token
        return wire.list_page(self.connection, arguments, len(self._prefix), self._md5_etags)

    def _bucket(self) -> dict[str, Any]:
        return {"Bucket": self.settings.bucket} | self.settings.owner_args

    def _object(self, path: str) -> dict[str, Any]:
        return self._bucket() | {"Key": self.key(path)}

    def _part(self, path: str, upload_id: str, number: int) -> dict[str, Any]:
        return self._object(path) | {"UploadId": upload_id, "PartNumber": number}

    def _new_object(self, path: str, content_type: str | None, digest: Digest | None) -> dict[str, Any]:
        arguments = self._object(path) | self._extra
        if content_type:
            arguments["ContentType"] = content_type
        if digest:
            arguments["Metadata"] = arguments.get("Metadata", {}) | {objects.CRC_METADATA: digest.value}
        return arguments


def _folders_of(paths: Sequence[str]) -> set[str]:
    """The keys, with their slash, of all folders below the root that the paths lie in."""
    return {path[: end + 1] for path in paths for end, character in enumerate(path) if character == "/"}


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    """The headers, with names in lower case, of boto3's answer."""
    return dict(answer["ResponseMetadata"]["HTTPHeaders"])


def _receipts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The parts as `complete_multipart_upload` takes them; a receipt is an ETag and, after a blank, a checksum."""
    receipts = []
    for part in parts:
        etag, _, crc = part.receipt.partition(" ")
        receipts.append({"PartNumber": part.number, "ETag": etag} | ({"ChecksumCRC32C": crc} if crc else {}))
    return receipts
