"""Uploads of streams of unknown length, also from an event loop."""

from __future__ import annotations

import asyncio
import io
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import BinaryIO

from mlflow_plugkit.artifacts.backend import MEBIBYTE, MultipartBackend, Part, Source, Upload
from mlflow_plugkit.artifacts.engine import Engine, gather
from mlflow_plugkit.artifacts.multipart import Session
from mlflow_plugkit.artifacts.uploads import upload_all
from mlflow_plugkit.errors import mlflow_error

#: How many parts of a stream are held in memory at once, the one that is being filled included.
PARTS_HELD = 3

#: How many bytes of an asynchronous source wait for the thread that uploads them.
BYTES_WAITING = 4 * MEBIBYTE


def upload_stream(engine: Engine, path: str, stream: BinaryIO, content_type: str | None) -> None:
    """Upload a stream: whole where it is short; else in parts, as a stream, or through a temporary file.

    An error of the source is raised as it is, and nothing is published.
    """
    backend = engine.backend
    first = read_exactly(stream, backend.part_size)
    if len(first) < backend.part_size:
        upload_all(engine, [Upload(path, Source(data=first), content_type)])
    elif backend.streams:
        with engine.applied(f"upload {path!r}"):
            backend.put(path, Source(stream=io.BufferedReader(_Rest(first, stream), MEBIBYTE)), content_type)
    elif isinstance(backend, MultipartBackend):
        with engine.applied(f"upload {path!r}"):
            _upload_parts(engine, backend, path, first, stream, content_type)
    else:
        _spool(engine, path, first, stream, content_type)


def _upload_parts(
    engine: Engine, backend: MultipartBackend, path: str, data: bytes, stream: BinaryIO, content_type: str | None
) -> None:
    session = Session(engine, backend, path, content_type, None, backend.part_size)
    futures: list[Future[Part]] = []
    try:
        session.open()
        with engine.parts.use() as pool:
            try:
                size = 0
                while data:
                    if len(futures) == backend.max_parts:
                        raise _too_long(backend)
                    size += len(data)
                    futures.append(pool.submit(session.put, len(futures) + 1, Source(data=data)))
                    del data  # the pool holds it until it is sent; a further reference would hold one part more
                    _wait_for_room(futures)
                    data = read_exactly(stream, backend.part_size)
            except BaseException:
                for future in futures:
                    future.cancel()
                wait(futures)
                raise
            parts = gather(futures)
        session.complete(parts, size)
    except BaseException as error:
        session.fail(error)
        raise


def _wait_for_room(futures: list[Future[Part]]) -> None:
    """Wait until fewer than `PARTS_HELD` parts are held; raise the error of one that failed."""
    while True:
        pending = [future for future in futures[-PARTS_HELD - 1 :] if not future.done()]
        for future in futures[-PARTS_HELD - 1 :]:
            if future.done():
                future.result()
        if len(pending) < PARTS_HELD:
            return
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
    """What was read ahead, then the rest of the stream."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self._first, self._stream = memoryview(first), stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed asks for a Buffer
        wanted = len(buffer)
        data = self._first[:wanted] or self._stream.read(wanted)
        self._first = self._first[wanted:]
        memoryview(buffer)[: len(data)] = data
        return len(data)


async def upload_async_stream(consume: Callable[[BinaryIO], None], chunks: AsyncIterable[bytes]) -> None:
    """Feed an asynchronous source to a function that reads a stream, which runs in a thread of its own.

    The event loop is never blocked, and no more than `BYTES_WAITING` bytes (and one chunk) wait for the thread.

    Args:
        consume: reads the stream to its end; an error of the source is raised to it by `read`.
        chunks: the source. Its error, also a cancellation, is raised when the thread has ended.
    """
    loop = asyncio.get_running_loop()
    pipe = _Pipe(loop)
    ended: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        error: BaseException | None = None
        try:
            consume(io.BufferedReader(pipe, MEBIBYTE))
        except BaseException as exc:  # noqa: BLE001 # raised to the caller, in the event loop
            error = exc
        pipe.abandon()
        loop.call_soon_threadsafe(_end, ended, error)

    threading.Thread(target=work, name="plugkit-stream", daemon=True).start()
    try:
        async for chunk in chunks:
            if chunk and not await pipe.feed(chunk):
                break
        pipe.finish(None)
    except BaseException as error:
        pipe.finish(error)
        await asyncio.shield(asyncio.wait([ended]))
        ended.exception()  # that of the source is raised instead
        raise
    await ended


def _end(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.cancelled():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


class _Pipe(io.RawIOBase):
    """Bytes from an event loop, read by a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._arrived = loop, threading.Condition()
        self._chunks: deque[memoryview] = deque()
        self._held, self._ended, self._abandoned = 0, False, False
        self._error: BaseException | None = None
        self._room = asyncio.Event()

    async def feed(self, chunk: bytes) -> bool:
        """Add a chunk, when there is room; False when nobody reads any more."""
        while True:
            with self._arrived:
                if self._abandoned:
                    return False
                if self._held < BYTES_WAITING:
                    self._chunks.append(memoryview(chunk))
                    self._held += len(chunk)
                    self._arrived.notify()
                    return True
                self._room.clear()
            await self._room.wait()

    def finish(self, error: BaseException | None) -> None:
        """No chunk follows; with an error, the reader gets it."""
        with self._arrived:
            self._ended, self._error = True, error
            self._arrived.notify()

    def abandon(self) -> None:
        """The reader is done, and wakes a source that waits for room."""
        with self._arrived:
            self._abandoned = True
        self._loop.call_soon_threadsafe(self._room.set)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed asks for a Buffer
        with self._arrived:
            self._arrived.wait_for(lambda: self._chunks or self._ended)
            if self._error is not None:
                raise BrokenSourceError(str(self._error) or type(self._error).__name__) from self._error
            if not self._chunks:
                return 0
            chunk = self._chunks[0]
            count = min(len(buffer), len(chunk))
            memoryview(buffer)[:count] = chunk[:count]
            if count == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = chunk[count:]
            self._held -= count
        self._loop.call_soon_threadsafe(self._room.set)
        return count


class BrokenSourceError(Exception):
    """The source of a stream failed; its error is the cause."""
