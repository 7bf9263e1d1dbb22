"""A store in memory with every mix-in, whose operations can be made to fail, and the repository on it."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mlflow_plugkit.artifacts.backend import (
    Backend,
    BulkBackend,
    DeleteFailure,
    Digest,
    FileBackend,
    MultipartBackend,
    Page,
    Part,
    PendingUpload,
    PresignedRequest,
    PresigningBackend,
    Source,
    StoredObject,
    Upload,
)
from mlflow_plugkit.artifacts.checksums import hasher
from mlflow_plugkit.artifacts.repository import EngineArtifactRepository, PresigningArtifactRepository
from mlflow_plugkit.errors import ErrorRow, ErrorTable
from mlflow_plugkit.uri import parse_uri


class Busy(Exception):
    """Worth trying again, after the given seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__("the store is busy")
        self.delay = delay


class Denied(Exception):
    """Not worth trying again."""


class Stale(Exception):
    """Another version than the one asked for."""


class Truncated(Exception):
    """Raised by a hook of `chunk`: the answer ends here, without an error."""


def damaged(content: bytes) -> bytes:
    """The content with another first byte, whatever that was."""
    return bytes([content[0] ^ 1]) + content[1:]


ERRORS = ErrorTable(
    "Memory",
    [
        ErrorRow("memory.Busy", "TEMPORARILY_UNAVAILABLE", "Try again later."),
        ErrorRow("memory.Denied", "PERMISSION_DENIED", "Ask for access."),
        ErrorRow("memory.Stale", "RESOURCE_CONFLICT"),
        ErrorRow("memory.NoSuchUpload", "RESOURCE_DOES_NOT_EXIST"),
    ],
)


class NoSuchUpload(Exception):
    """The upload is gone."""


@dataclass
class Bucket:
    """The content of one store, and the hooks that tests hang on its operations.

    Attributes:
        calls: (operation, path) of every call.
        before: called with (operation, path) before each; raise in it to fail the operation.
        mangle: changes a chunk that is read.
    """

    objects: dict[str, tuple[bytes, int, str | None]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[int, bytes]]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda operation, path: None
    mangle: Callable[[bytes], bytes] = lambda chunk: chunk
    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def note(self, operation: str, path: str) -> None:
        self.calls.append((operation, path))
        self.before(operation, path)

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)


BUCKETS: dict[str, Bucket] = {}


class WholeMemoryBackend(Backend):
    """Objects of a `Bucket` below a prefix, with small pages; takes each object whole."""

    errors = ERRORS
    checksum = "sha256"
    part_size = 64 * 1024
    multipart_threshold = 128 * 1024
    parallel_transfers = 4
    retry_wait = 0.001
    page = 7

    def __init__(self, bucket: Bucket, prefix: str = "", name: str = "test") -> None:
        self.bucket, self.prefix, self.name = bucket, prefix, name

    @property
    def root(self) -> str:
        return f"memory://{self.name}/{self.prefix}".rstrip("/")

    def retry_delay(self, error: BaseException) -> float | None:
        if isinstance(error, Busy):
            return error.delay
        return 0.0 if isinstance(error, ConnectionError) else None

    def key(self, path: str) -> str:
        return "/".join(p for p in (self.prefix, path) if p)

    def describe(self, path: str, content: bytes, version: int) -> StoredObject:
        digest = None
        if self.checksum:
            total = hasher(self.checksum)
            total.update(content)
            digest = Digest(self.checksum, total.hexdigest())
        return StoredObject(path, len(content), str(version), digest)

    def head(self, path: str) -> StoredObject | None:
        self.bucket.note("head", path)
        found = self.bucket.objects.get(self.key(path))
        return self.describe(path, found[0], found[1]) if found else None

    def list_page(self, path: str, token: str | None) -> Page:
        self.bucket.note("list", path)
        start = f"{self.key(path)}/" if self.key(path) else ""
        objects, folders = [], set()
        for key, (content, version, _) in sorted(self.bucket.objects.items()):
            if key.startswith(start):
                name = key[len(start) :]
                below = f"{path}/{name}" if path else name
                if "/" in name:
                    folders.add(below[: len(below) - len(name) + name.index("/")])
                else:
                    objects.append(self.describe(below, content, version))
        entries = sorted([*objects, *folders], key=lambda e: e if isinstance(e, str) else e.path)
        first = int(token or 0)
        some = entries[first : first + self.page]
        more = str(first + self.page) if first + self.page < len(entries) else None
        return Page([e for e in some if not isinstance(e, str)], [e for e in some if isinstance(e, str)], more)

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        self.bucket.note("read", path)
        content, current, _ = self.bucket.objects[self.key(path)]
        if version is not None and str(current) != version:
            raise Stale(path)
        end = len(content) if length is None else start + length
        for offset in range(start, end, 10_000):
            try:
                self.bucket.note("chunk", path)
            except Truncated:
                return
            chunk = self.bucket.mangle(content[offset : min(offset + 10_000, end)])
            if chunk:
                yield chunk

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        self.bucket.note("put", path)
        return self.publish(path, source.read(), content_type)

    def publish(self, path: str, content: bytes, content_type: str | None) -> StoredObject:
        with self.bucket.lock:
            version = next(self.bucket.versions)
            self.bucket.objects[self.key(path)] = (content, version, content_type)
        return self.describe(path, content, version)

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        self.bucket.note("delete", paths[0])
        for path in paths:
            self.bucket.objects.pop(self.key(path), None)
        return []


class MemoryBackend(WholeMemoryBackend, MultipartBackend):
    """Takes objects in small parts, too."""

    def create_multipart(self, path: str, content_type: str | None, digest: Digest | None) -> str:
        self.bucket.note("create", path)
        with self.bucket.lock:
            upload_id = f"upload-{next(self.bucket.versions)}"
            self.bucket.uploads[upload_id] = (self.key(path), {})
        return upload_id

    def parts_of(self, upload_id: str) -> dict[int, bytes]:
        if upload_id not in self.bucket.uploads:
            raise NoSuchUpload(upload_id)
        return self.bucket.uploads[upload_id][1]

    def put_part(self, path: str, upload_id: str, number: int, source: Source) -> Part:
        self.bucket.note("part", path)
        content = source.read()
        self.parts_of(upload_id)[number] = content
        return Part(number, hashlib.sha256(content).hexdigest(), len(content))

    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[Part]) -> StoredObject | None:
        self.bucket.note("complete", path)
        held = self.parts_of(upload_id)
        stored = self.publish(path, b"".join(held[part.number] for part in parts), None)
        del self.bucket.uploads[upload_id]
        return stored

    def abort_multipart(self, path: str, upload_id: str) -> None:
        self.bucket.note("abort", path)
        self.bucket.uploads.pop(upload_id, None)

    def list_parts(self, path: str, upload_id: str) -> Sequence[Part] | None:
        self.bucket.note("parts", path)
        if upload_id not in self.bucket.uploads:
            return None
        held = self.parts_of(upload_id)
        return [Part(n, hashlib.sha256(held[n]).hexdigest(), len(held[n])) for n in sorted(held)]

    def list_multiparts(self) -> list[PendingUpload]:
        start = f"{self.prefix}/" if self.prefix else ""
        return [
            PendingUpload(key.removeprefix(start), upload_id, time.time())
            for upload_id, (key, _) in self.bucket.uploads.items()
        ]


class BulkMemoryBackend(MemoryBackend, BulkBackend, FileBackend):
    """Uploads in bulk and downloads by means of its own."""

    def put_many(self, uploads: Sequence[Upload], done: Callable[[Upload], None]) -> None:
        self.bucket.note("bulk", str(len(uploads)))
        for each in uploads:
            self.put(each.path, each.source, each.content_type, each.digest)
            done(each)

    def get_file(self, stored: StoredObject, local_path: str, received: Callable[[int], None]) -> None:
        self.bucket.note("get", stored.path)
        with open(local_path, "wb") as file:
            for chunk in self.read(stored.path, 0, None, stored.version):
                file.write(chunk)
                received(len(chunk))


class PresigningMemoryBackend(MemoryBackend, PresigningBackend):
    """Its presigned URLs name what they allow; nothing serves them."""

    def presign_get(self, path: str, seconds: int) -> PresignedRequest:
        return PresignedRequest(f"memory-get:{self.key(path)}?{seconds}")

    def presign_put(self, path: str, seconds: int, content_type: str | None) -> PresignedRequest:
        return PresignedRequest(f"memory-put:{self.key(path)}?{seconds}", (("Content-Type", content_type or ""),))

    def presign_part(self, path: str, upload_id: str, number: int, seconds: int) -> PresignedRequest:
        self.bucket.note("presign", path)
        return PresignedRequest(f"memory-part:{self.key(path)}?{upload_id}&{number}&{seconds}")


class MemoryRepository(EngineArtifactRepository):
    """`memory://<bucket>/<prefix>`; buckets live in `BUCKETS`."""

    backend_class: type[WholeMemoryBackend] = MemoryBackend

    def make_backend(self, artifact_uri: str) -> WholeMemoryBackend:
        uri = parse_uri(artifact_uri)
        return self.backend_class(BUCKETS.setdefault(uri.host, Bucket()), uri.path.strip("/"), uri.host)

    @property
    def bucket(self) -> Bucket:
        return self._engine.backend.bucket

    @property
    def backend(self) -> WholeMemoryBackend:
        return self._engine.backend


class WholeMemoryRepository(MemoryRepository):
    backend_class = WholeMemoryBackend


class StreamingMemoryBackend(WholeMemoryBackend):
    streams = True


class StreamingMemoryRepository(MemoryRepository):
    backend_class = StreamingMemoryBackend


class BulkMemoryRepository(MemoryRepository):
    backend_class = BulkMemoryBackend


class PresigningMemoryRepository(PresigningArtifactRepository):
    """The repository whose backend presigns."""

    def make_backend(self, artifact_uri: str) -> PresigningMemoryBackend:
        uri = parse_uri(artifact_uri)
        return PresigningMemoryBackend(BUCKETS.setdefault(uri.host, Bucket()), uri.path.strip("/"), uri.host)


def nth(number: int, operation: str, error: BaseException) -> Callable[[str, str], None]:
    """A hook for `Bucket.before` that raises the error at the nth call of the operation, and at no other."""
    seen = itertools.count(1)

    def raise_it(name: str, path: str) -> None:
        if name == operation and next(seen) == number:
            raise error

    return raise_it


def always(operation: str, error: Callable[[], BaseException]) -> Callable[[str, str], None]:
    """A hook for `Bucket.before` that fails each call of the operation."""

    def raise_it(name: str, path: str) -> None:
        if name == operation:
            raise error()

    return raise_it
