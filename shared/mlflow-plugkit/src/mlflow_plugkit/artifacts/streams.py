"""Uploads of streams of unknown length."""

from __future__ import annotations

import io
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import BinaryIO

from mlflow_plugkit.artifacts.backend import MEBIBYTE, Digest, MultipartBackend, Part, Source, Upload
from mlflow_plugkit.artifacts.checksums import hasher
from mlflow_plugkit.artifacts.engine import Engine, gather
from mlflow_plugkit.artifacts.multipart import Session, check_stored
from mlflow_plugkit.artifacts.retries import StoredDamagedError
from mlflow_plugkit.artifacts.uploads import upload_all
from mlflow_plugkit.errors import mlflow_error

#: How many parts of a stream are held in memory at once, the one that is being filled included.
PARTS_HELD = 3


def upload_stream(engine: Engine, path: str, stream: BinaryIO, content_type: str | None) -> None:
    """Upload a stream: whole where it is short; else in parts, as a stream, or through a temporary file.

    An error of the source is raised as it is, and nothing is published.
    """
    backend = engine.backend
    first = read_exactly(stream, backend.part_size)
    if len(first) < backend.part_size:
        upload_all(engine, [Upload(path, Source(data=first), content_type)])
    elif backend.streams or isinstance(backend, MultipartBackend):
        with engine.applied(f"upload {path!r}"):
            try:
                if backend.streams:
                    _put_stream(engine, path, first, stream, content_type)
                elif isinstance(backend, MultipartBackend):
                    _upload_parts(engine, backend, path, first, stream, content_type)
            except StoredDamagedError:
                engine.call(backend.delete_many, [path])
                raise
    else:
        _spool(engine, path, first, stream, content_type)


def _put_stream(engine: Engine, path: str, first: bytes, stream: BinaryIO, content_type: str | None) -> None:
    """Upload a stream as one; again where it failed before more than the first bytes were read."""
    backend, spoiled = engine.backend, list[Exception]()

    def put() -> None:
        rest = _Rest(first, stream, backend.checksum)
        try:
            stored = backend.put(path, Source(stream=io.BufferedReader(rest, MEBIBYTE)), content_type)
            if rest.error is not None:
                raise rest.error
        except Exception as error:
            if not rest.has_read_on:
                raise
            spoiled.append(rest.error or error)
        else:
            check_stored(path, stored, rest.size, rest.digest())

    engine.call(put)
    if spoiled:
        raise spoiled[0]


def _upload_parts(
    engine: Engine, backend: MultipartBackend, path: str, data: bytes, stream: BinaryIO, content_type: str | None
) -> None:
    session = Session(engine, backend, path, content_type, None, backend.part_size)
    futures: list[Future[Part]] = []
    try:
        session.open()
        with engine.parts.use() as pool:
            total = hasher(backend.checksum) if backend.checksum else None
            try:
                size, pending = 0, set[Future[Part]]()
                while data:
                    if len(futures) == backend.max_parts:
                        raise _too_long(backend)
                    size += len(data)
                    if total is not None:
                        total.update(data)
                    futures.append(pool.submit(session.put, len(futures) + 1, Source(data=data)))
                    del data  # the pool holds it until it is sent; a further reference would hold one part more
                    pending = _wait_for_room(pending | {futures[-1]})
                    data = read_exactly(stream, backend.part_size)
            except BaseException:
                for future in futures:
                    future.cancel()
                wait(futures)
                raise
            parts = gather(futures)
        if total is not None and backend.checksum:
            session.digest = Digest(backend.checksum, total.hexdigest())
        session.complete(parts, size)
    except BaseException as error:
        session.fail(error)
        raise


def _wait_for_room(pending: set[Future[Part]]) -> set[Future[Part]]:
    """Wait until fewer than `PARTS_HELD` parts are held; raise the error of one that failed."""
    while True:
        finished = {future for future in pending if future.done()}
        for future in finished:
            future.result()
        pending = pending - finished
        if len(pending) < PARTS_HELD:
            return pending
        wait(pending, return_when=FIRST_COMPLETED)


def _too_long(backend: MultipartBackend) -> Exception:
    most = backend.part_size * backend.max_parts // MEBIBYTE
    return mlflow_error(
        f"{backend.errors.service}: a stream of unknown length may have {most} MiB in parts of {backend.part_size} "
        "bytes. Log the file directly rather than through the server, or use larger parts."
    )


def _spool(engine: Engine, path: str, first: bytes, stream: BinaryIO, content_type: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="plugkit-") as folder:
        with open(f"{folder}/spool", "wb") as spool:
            while first:
                spool.write(first)
                first = stream.read(MEBIBYTE)
        upload_all(engine, [Upload(path, Source(file=f"{folder}/spool"), content_type)])


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; fewer only at the end."""
    pieces, left = [], size
    while left and (piece := stream.read(min(left, MEBIBYTE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


class _Rest(io.RawIOBase):
    """What was read ahead, then the rest of the stream, hashed as it passes.

    Attributes:
        size: bytes that passed.
        has_read_on: whether the stream itself was read, so that it cannot be repeated.
        error: what the stream raised, should its reader have kept it to itself.
    """

    def __init__(self, first: bytes, stream: BinaryIO, algorithm: str | None) -> None:
        self._first, self._stream, self._algorithm = memoryview(first), stream, algorithm
        self._hasher = hasher(algorithm) if algorithm else None
        self.size, self.has_read_on = 0, False
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed asks for a Buffer
        wanted = len(buffer)
        data = self._first[:wanted] or self._read_on(wanted)
        self._first = self._first[wanted:]
        memoryview(buffer)[: len(data)] = data
        self.size += len(data)
        if self._hasher is not None:
            self._hasher.update(data)
        return len(data)

    def _read_on(self, wanted: int) -> bytes:
        self.has_read_on = True
        try:
            return self._stream.read(wanted)
        except Exception as error:
            self.error = error
            raise

    def digest(self) -> Digest | None:
        """The digest of all that passed."""
        return Digest(self._algorithm, self._hasher.hexdigest()) if self._algorithm and self._hasher else None
