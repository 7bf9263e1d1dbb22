"""The fast data plane: obstore moves content, boto3 does the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_plugkit.artifacts.backend import MEBIBYTE, BulkBackend, Digest, Source, StoredObject, Upload
from mlflow_plugkit.artifacts.engine import gather
from mlflow_s3_artifacts import objects
from mlflow_s3_artifacts.backend import SMALL, S3Backend
from mlflow_s3_artifacts.gate import Gate
from mlflow_s3_artifacts.settings import S3Settings
from mlflow_s3_artifacts.stores import botocore_errors, obstore, store_for, survives_here


class ObstoreBackend(S3Backend, BulkBackend):
    """An `S3Backend` whose downloads and small uploads are native code.

    Large uploads stay with `S3Backend`: obstore reads a part into memory and knows no upload that was
    begun by another process. In a forked child of a process that used obstore, boto3 does everything.

    Attributes:
        small_at_once: how many small files travel at once; each waits for its answer and holds about 1 MiB.
    """

    small_at_once = 64

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings)
        self._obstore = obstore()
        self._store: Any = None
        self._gate = Gate(self.small_at_once)

    @property
    def store(self) -> Any:
        """The bucket as obstore knows it."""
        if self._store is None:
            self._store = store_for(self.connection, self.settings)
        return self._store

    def close(self) -> None:
        super().close()
        self._store, self._gate = None, Gate(self.small_at_once)

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        if length == 0:
            return
        if not survives_here():
            yield from super().read(path, start, length, version)
            return
        options: dict[str, Any] = {"range": (start, start + length) if length is not None else {"offset": start}}
        if version:
            options["if_match"] = version
        key, store = self.key(path), self.store
        with self._errors("GetObject"):
            if length is not None and length <= MEBIBYTE:
                with self._gate.passing():
                    content = self._obstore.get(store, key, options=options).bytes()
                yield content
            else:
                yield from self._obstore.get(self.store, self.key(path), options=options).stream(
                    min_chunk_size=MEBIBYTE
                )

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        if source.size is None or source.size > SMALL or not survives_here():
            return super().put(path, source, content_type, digest)
        content = source.read()
        attributes = {objects.CRC_METADATA: digest.value} if digest else {}
        if content_type:
            attributes["Content-Type"] = content_type
        with self._errors("PutObject"):
            answer = self._obstore.put(self.store, self.key(path), content, attributes=attributes, use_multipart=False)
        self._check(path, content, answer["e_tag"] or "")
        return StoredObject(path, len(content), answer["e_tag"])

    def put_many(self, uploads: Sequence[Upload], done: Callable[[Upload], None]) -> None:
        for size, group in (
            (self.small_at_once, [u for u in uploads if u.source.size is not None and u.source.size <= SMALL]),
            (self.parallel_transfers, [u for u in uploads if u.source.size is None or u.source.size > SMALL]),
        ):
            if not group:
                continue
            with ThreadPoolExecutor(min(size, len(group)), thread_name_prefix="plugkit-s3") as pool:
                gather([pool.submit(self._put_one, each, done) for each in group])

    def _put_one(self, each: Upload, done: Callable[[Upload], None]) -> None:
        self.put(each.path, each.source, each.content_type, each.digest)
        done(each)

    def _check(self, path: str, content: bytes, etag: str) -> None:
        """Compare the ETag with what was sent; obstore does not say whether the service checked the SHA-256."""
        if self.settings.upload_check == "off" or self.settings.endpoint is None or not self._md5_etags:
            return
        if etag.strip('"') != hashlib.md5(content, usedforsecurity=False).hexdigest():
            # A bucket that encrypts by itself has ETags that are no MD5: boto3's answer says so.
            answer = self.connection.client.head_object(**self._object(path))
            objects.check_answer(path, Source(data=content), answer["ResponseMetadata"]["HTTPHeaders"])

    def _errors(self, operation: str) -> Any:
        return botocore_errors(operation, self.settings.endpoint or "Amazon S3")
