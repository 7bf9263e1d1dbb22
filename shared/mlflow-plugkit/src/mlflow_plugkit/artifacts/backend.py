"""What a storage backend states, so that the engine can give it MLflow's whole artifact surface.

Paths are clean artifact paths below the repository's root (`model/MLmodel`; `""` is the root): the
backend joins them with its own bucket and prefix, and a listing returns them relative to the same root.
A method raises its SDK's own errors: the engine retries what `Backend.retry_delay` allows and maps the
rest through `Backend.errors`. Nothing here imports an SDK or MLflow.

    class DemoBackend(Backend):
        errors = DEMO_ERRORS

        def head(self, path): ...
        def list_page(self, path, token): ...
        def read(self, path, start, length): ...
        def put(self, path, source, content_type, digest=None): ...
        def delete_many(self, paths): ...

A backend that can do more says so by more base classes: `MultipartBackend`, `PresigningBackend`,
`BulkBackend`, `FileBackend`.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, NamedTuple

from mlflow_plugkit.errors import ErrorTable

MEBIBYTE = 1024 * 1024


class Digest(NamedTuple):
    """A checksum of content. A tuple, since a listing makes thousands of them.

    Attributes:
        algorithm: a name that `mlflow_plugkit.artifacts.checksums.hasher` knows: `md5`, `sha256`,
            `crc32c`, `crc64` (ECMA-182, reflected, as Alibaba OSS and `xz` use it).
        value: lower-case hexadecimal; for a CRC of n bits, n/4 digits.
        part_size: None for a checksum of the whole content. In bytes, where the value is the checksum of
            the concatenated (binary) checksums of parts of that size, as S3's multipart ETag is.
    """

    algorithm: str
    value: str
    part_size: int | None = None


class StoredObject(NamedTuple):
    """One stored object. A tuple, since a listing makes thousands of them.

    Attributes:
        path: artifact path below the root.
        size: bytes.
        version: what changes whenever the content does (ETag, generation, upload id), if the backend has
            it; a download in ranges is pinned to it.
        digest: the checksum that the backend keeps for the content, if any.
        verified_by_read: True in a listing without digests, where a `read` from the first byte to the last
            verifies the content by what the answer says of it. The engine then downloads a file that is no
            larger than `multipart_threshold` without a `head`, and after an error from its first byte.
    """

    path: str
    size: int
    version: str | None = None
    digest: Digest | None = None
    verified_by_read: bool = False


@dataclass(frozen=True)
class Page:
    """One page of a one-level listing: the objects and folders directly below the path, the next page's token."""

    objects: Sequence[StoredObject]
    folders: Sequence[str]
    next_token: str | None = None


@dataclass(frozen=True)
class Part:
    """One uploaded part: its number from 1, the backend's receipt (ETag) for it, its size in bytes."""

    number: int
    receipt: str
    size: int = 0


@dataclass(frozen=True)
class PendingUpload:
    """A multipart upload that was begun and not finished: `started` is in seconds since the epoch."""

    path: str
    upload_id: str
    started: float


@dataclass(frozen=True)
class DeleteFailure:
    """A path that could not be deleted, the backend's error code and its message."""

    path: str
    code: str
    message: str


@dataclass(frozen=True)
class PresignedRequest:
    """A URL that carries its own permission, and the headers that must be sent with it."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()


class Source:
    """Content to upload: a file, a slice of one, bytes, or a stream that can be read once.

    Attributes:
        file: the file's path, or None.
        start: offset of the first byte in the file.
        size: bytes, or None for a stream of unknown length.
        rewindable: whether `open` may be called again, so that a failed upload can be repeated.
    """

    def __init__(
        self,
        *,
        file: str | os.PathLike[str] | None = None,
        data: bytes | None = None,
        stream: BinaryIO | None = None,
        start: int = 0,
        size: int | None = None,
    ) -> None:
        if sum(given is not None for given in (file, data, stream)) != 1:
            raise ValueError("a Source is made of exactly one of file, data and stream")
        self.file = os.fspath(file) if file is not None else None
        self.start = start
        self.rewindable = stream is None
        self._data, self._stream = data, stream
        if size is None and data is not None:
            size = len(data)
        elif size is None and self.file is not None:
            size = os.path.getsize(self.file) - start
        self.size = size

    def open(self) -> BinaryIO:
        """A reader at the first byte, to be closed by the caller. Of a slice it reads no more than `size` bytes."""
        if self._data is not None:
            return io.BytesIO(self._data)
        if self._stream is not None:
            return self._stream
        if self.file is None or self.size is None:
            raise ValueError("a Source of nothing")
        reader = open(self.file, "rb", buffering=0)  # noqa: SIM115 # the caller closes it
        return io.BufferedReader(_Slice(reader, self.start, self.size), MEBIBYTE)

    def read(self) -> bytes:
        """All of it, in memory: for small content and single parts."""
        with self.open() as reader:
            return reader.read()

    def slice(self, start: int, size: int) -> Source:
        """A part of a file or of bytes, as a source of its own."""
        if self._data is not None:
            return Source(data=self._data[start : start + size])
        if self.file is None:
            raise ValueError("a stream cannot be cut into slices")
        return Source(file=self.file, start=self.start + start, size=size)


class _Slice(io.RawIOBase):
    """`size` bytes of an open file from `start` on, seekable, so that HTTP clients can measure and rewind it."""

    def __init__(self, file: io.FileIO | io.RawIOBase, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        self._file.seek(self._start + self._position)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed asks for a Buffer
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class Upload:
    """One file of a bulk upload."""

    path: str
    source: Source
    content_type: str | None = None
    digest: Digest | None = None


class Backend(ABC):
    """The primitives that every backend states.

    Attributes:
        errors: the backend's error table; the engine applies it at one choke point.
        checksum: the algorithm of the digest that the engine computes of each file before the upload; None
            where the backend itself makes sure that what arrived is what was sent.
        part_size: bytes of a part of a large transfer; the engine enlarges it where a file would have too
            many parts.
        max_parts: the most parts that one object may have.
        multipart_threshold: bytes from which an upload is cut into parts and a download into ranges.
        parallel_transfers: how many files or parts travel at once.
        streams: whether `put` takes a source of unknown size that can be read only once. Otherwise the
            engine cuts a stream into parts (`MultipartBackend`) or spools it to a temporary file.
        serial_reads: True where ranges of one object cannot usefully be read in parallel.
        delete_batch: the most paths that one `delete_many` takes; more where a deletion is one transaction.
        retry_attempts: how often an operation is tried in all, where `retry_delay` allows it.
        retry_wait: seconds of the first back-off; it doubles, with full jitter, up to `retry_wait_max`. A wait
            that the server asks for is honoured where it is longer.
        retry_wait_max: see `retry_wait`.
        retry_seconds: the most seconds that are spent waiting between the attempts, in all.
        bytes_in_flight: how many bytes of parts and ranges of large files are under way at once. A backend that
            holds a part in memory needs about this much for all of them.
    """

    errors: ClassVar[ErrorTable]
    checksum: str | None = None
    part_size: int = 16 * MEBIBYTE
    max_parts: int = 10_000
    multipart_threshold: int = 32 * MEBIBYTE
    parallel_transfers: int = 16
    streams: bool = False
    serial_reads: bool = False
    delete_batch: int = 1000
    retry_attempts: int = 6
    retry_wait: float = 0.5
    retry_wait_max: float = 20.0
    retry_seconds: float = 120.0
    bytes_in_flight: int = 96 * MEBIBYTE

    @property
    def root(self) -> str:
        """Where the root is, for messages and for the journal of uploads; stable and free of secrets."""
        raise NotImplementedError

    def secrets(self) -> Sequence[str]:
        """Values that no message may show."""
        return ()

    @abstractmethod
    def head(self, path: str) -> StoredObject | None:
        """The object at exactly this path, or None."""

    @abstractmethod
    def list_page(self, path: str, token: str | None) -> Page:
        """One page of what lies directly below `path`, in any order.

        A page may hold objects that MLflow must not see (folder markers, names that are no clean path):
        the engine leaves them out. An empty or missing folder is an empty page.
        """

    @abstractmethod
    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        """The content from byte `start` on, `length` bytes of it (None: to the end), in chunks.

        The first chunk is fetched on the first `next`. With `version`, content of another version is an
        error. The engine checks the length, so a connection that ends early need not be noticed here.
        """

    @abstractmethod
    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        """Store one object whole: it is visible under its path with all its content, or not at all.

        `digest` is the content's, by the algorithm that `checksum` names (None for a stream): send it along
        so that the server refuses what arrives damaged, and keep it for those who download.

        Returns the stored object where the backend's answer describes it; the engine compares size and
        digest with what it sent.
        """

    @abstractmethod
    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        """Delete up to `delete_batch` objects; a path that does not exist is no failure."""

    def list_all(self, path: str) -> Iterator[StoredObject]:
        """Every object whose path is `path` or lies below `path/`: by default a walk over `list_page`."""
        here = self.head(path) if path else None
        if here is not None:
            yield here
        folders = [path]
        while folders:
            folder, token = folders.pop(), None
            while True:
                page = self.list_page(folder, token)
                yield from page.objects
                folders.extend(page.folders)
                token = page.next_token
                if token is None:
                    break

    def retry_delay(self, error: BaseException) -> float | None:
        """Seconds that the server asks to wait before this is tried again.

        0.0 leaves it to the engine's jittered back-off; None means that trying again cannot help.
        """
        return None

    def close(self) -> None:  # noqa: B027 # most backends have nothing to release
        """Release connections. The engine calls it where a process forked: a child makes its own."""


class MultipartBackend(Backend):
    """A backend that takes one object in parts, in any order, in parallel."""

    @abstractmethod
    def create_multipart(self, path: str, content_type: str | None, digest: Digest | None) -> str:
        """Begin an upload and return its id. `digest` is the whole content's, where it is known beforehand."""

    @abstractmethod
    def put_part(self, path: str, upload_id: str, number: int, source: Source) -> Part:
        """Upload one part; numbers begin at 1."""

    @abstractmethod
    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[Part]) -> StoredObject | None:
        """Publish the object, of parts in the order of their numbers."""

    @abstractmethod
    def abort_multipart(self, path: str, upload_id: str) -> None:
        """Drop an upload and its parts; one that is gone already is no error."""

    @abstractmethod
    def list_parts(self, path: str, upload_id: str) -> Sequence[Part] | None:
        """The parts that arrived, or None where the upload is gone."""

    @abstractmethod
    def list_multiparts(self) -> Iterable[PendingUpload]:
        """The unfinished uploads below the root."""


class PresigningBackend(Backend):
    """A backend whose URLs can carry their own permission."""

    @abstractmethod
    def presign_get(self, path: str, seconds: int) -> PresignedRequest:
        """A URL to download the object."""

    @abstractmethod
    def presign_put(self, path: str, seconds: int, content_type: str | None) -> PresignedRequest:
        """A URL to upload the object."""

    @abstractmethod
    def presign_part(self, path: str, upload_id: str, number: int, seconds: int) -> PresignedRequest:
        """A URL to upload one part."""


class BulkBackend(Backend):
    """A backend that uploads many files better than one by one: in one commit, or in native code."""

    @abstractmethod
    def put_many(self, uploads: Sequence[Upload], done: Callable[[Upload], None]) -> None:
        """Upload files (each smaller than `multipart_threshold` unless the backend is no `MultipartBackend`).

        Calls `done` for each stored file, from any thread. Raises the first error that its own means did not
        mend; where `retry_delay` allows it, the engine calls again with the files that are not done.
        """


class FileBackend(Backend):
    """A backend that downloads a whole object by means of its own: native code, checks that only its SDK can make."""

    @abstractmethod
    def get_file(self, stored: StoredObject, local_path: str, received: Callable[[int], None]) -> None:
        """Write all of an object's content to `local_path`, which is a draft of the engine's choosing.

        The engine calls it in place of `read` for a download from the start, then compares size and digest
        with `stored` (what `head` answered) and gives the draft its final name. Where a digest is beyond the
        engine's algorithms, check it here and raise. Calls `received` with the count of new bytes, from any
        thread, for the progress bar; an attempt that raises may be repeated from the start.
        """
