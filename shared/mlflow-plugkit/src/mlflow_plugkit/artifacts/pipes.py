"""From an event loop to a thread: an asynchronous source as a stream that can be read."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from typing import Any, BinaryIO

from mlflow_plugkit.artifacts.backend import MEBIBYTE

#: How many bytes of the source wait for the thread.
BYTES_WAITING = 4 * MEBIBYTE


async def consume_in_thread(consume: Callable[[BinaryIO], None], chunks: AsyncIterable[bytes]) -> None:
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
        _call_in(loop, _end, ended, error)

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


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    with suppress(RuntimeError):  # the loop was closed: nobody waits any more
        loop.call_soon_threadsafe(function, *args)


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
        _call_in(self._loop, self._room.set)

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
        _call_in(self._loop, self._room.set)
        return count


class BrokenSourceError(Exception):
    """The source of a stream failed; its error is the cause."""
