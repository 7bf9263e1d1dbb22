"""Streams of unknown length, from a thread and from an event loop."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from memory import (
    Busy,
    Denied,
    MemoryRepository,
    StreamingMemoryRepository,
    WholeMemoryRepository,
    always,
    damaged,
    nth,
)
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts import pipes

KINDS = [MemoryRepository, WholeMemoryRepository, StreamingMemoryRepository]
LARGE = os.urandom(300_000)


def content_of(repository: MemoryRepository) -> bytes:
    return repository.bucket.objects["root/s/file.bin"][0]


class Dribble(io.RawIOBase):
    """Content in reads that are shorter than asked for; breaks after `until` bytes where that is given."""

    def __init__(self, content: bytes, until: int | None = None) -> None:
        self.left, self.until = memoryview(content), until

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.until is not None and self.until <= 0:
            raise ConnectionResetError("the client went away")
        piece = bytes(self.left[: min(size, 7_777)])
        self.left = self.left[len(piece) :]
        if self.until is not None:
            self.until -= len(piece)
        return piece


async def chunks_of(content: bytes, size: int = 20_000, until: int | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        if until is not None and start >= until:
            raise ConnectionResetError("the client went away")
        await asyncio.sleep(0)
        yield content[start : start + size]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 300_000])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_streams_of_any_length_arrive(uri: str, kind: type[MemoryRepository], size: int, way: str) -> None:
    repository = kind(uri)
    if way == "sync":
        repository.log_artifact_from_stream(Dribble(LARGE[:size]), "file.bin", "s")
    else:
        asyncio.run(repository.log_artifact_from_async_stream(chunks_of(LARGE[:size]), "file.bin", "s"))
    assert content_of(repository) == LARGE[:size]
    assert not repository.bucket.uploads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("until", [1, 100_000, 270_000])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_source_that_breaks_leaves_nothing(uri: str, kind: type[MemoryRepository], until: int, way: str) -> None:
    repository = kind(uri)
    log = repository.log_artifact_from_stream
    log_async = repository.log_artifact_from_async_stream
    calls = {
        "sync": lambda: log(Dribble(LARGE, until), "file.bin", "s"),
        "async": lambda: asyncio.run(log_async(chunks_of(LARGE, until=until), "file.bin", "s")),
    }
    with pytest.raises(ConnectionResetError):
        calls[way]()
    assert not repository.bucket.objects
    assert not repository.bucket.uploads


@pytest.mark.parametrize(
    ("kind", "operation", "size"),
    [
        (MemoryRepository, "put", 100),
        (MemoryRepository, "create", 300_000),
        (MemoryRepository, "part", 300_000),
        (MemoryRepository, "complete", 300_000),
        (WholeMemoryRepository, "put", 300_000),
        (StreamingMemoryRepository, "put", 300_000),
    ],
)
def test_a_refusal_leaves_nothing(uri: str, kind: type[MemoryRepository], operation: str, size: int) -> None:
    repository = kind(uri)
    repository.bucket.before = always(operation, Denied)
    with pytest.raises(MlflowException) as caught:
        asyncio.run(repository.log_artifact_from_async_stream(chunks_of(LARGE[:size]), "file.bin", "s"))
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert not repository.bucket.objects
    assert not repository.bucket.uploads


def test_a_source_that_waits_for_a_store_that_failed_is_woken(repository: MemoryRepository) -> None:
    """The source is ahead by more than may wait when the upload fails."""
    repository.bucket.before = always("create", Denied)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1_000_000

    async def run() -> None:
        await asyncio.wait_for(repository.log_artifact_from_async_stream(endless(), "file.bin"), 30)

    with pytest.raises(MlflowException):
        asyncio.run(run())


def test_a_cancelled_stream_leaves_nothing(repository: MemoryRepository) -> None:
    """The server cancels the request's task when the client goes away."""

    async def stalls() -> AsyncIterator[bytes]:
        yield LARGE
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(repository.log_artifact_from_async_stream(stalls(), "file.bin"))
        while not repository.bucket.count("part"):
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert not repository.bucket.objects
    assert not repository.bucket.uploads


def test_the_event_loop_is_never_blocked_and_the_source_is_held_back(
    repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow store neither stops the loop nor lets the whole source pile up in memory."""
    monkeypatch.setattr(pipes, "BYTES_WAITING", 200_000)
    given, late = [0], [0.0]
    repository.bucket.before = lambda operation, path: time.sleep(0.02) if operation == "part" else None

    async def source() -> AsyncIterator[bytes]:
        for _ in range(100):
            given[0] += 50_000
            stored = 64 * 1024 * repository.bucket.count("part")
            assert given[0] - stored < 200_000 + 5 * 64 * 1024 + 2 * pipes.MEBIBYTE, "the source ran ahead of the store"
            yield b"x" * 50_000

    async def heartbeat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            late[0] = max(late[0], time.monotonic() - before)

    async def run() -> None:
        beat = asyncio.create_task(heartbeat())
        await repository.log_artifact_from_async_stream(source(), "file.bin")
        beat.cancel()

    asyncio.run(run())
    assert len(repository.bucket.objects["root/file.bin"][0]) == 5_000_000
    assert late[0] < 1.0, f"the event loop stood still for {late[0]:.2f} s"


def test_few_parts_are_held_in_memory(repository: MemoryRepository) -> None:
    """However slow the store is: at most three, the one that is being read included."""
    read, most = [0], [0]

    class Counting(Dribble):
        def read(self, size: int = -1) -> bytes:
            piece = super().read(size)
            read[0] += len(piece)
            most[0] = max(most[0], read[0] - done[0] * 64 * 1024)
            return piece

    done, lock = [0], threading.Lock()
    put_part = repository.backend.put_part

    def slow(*args: object) -> object:
        time.sleep(0.005)
        part = put_part(*args)
        with lock:
            done[0] += 1
        return part

    repository.backend.put_part = slow
    repository.log_artifact_from_stream(Counting(os.urandom(3_000_000)), "file.bin")
    assert most[0] <= 3 * 64 * 1024 + 7_777


def test_a_stream_that_was_not_read_on_is_repeated(uri: str) -> None:
    """What was read ahead is enough to begin again; what was read beyond it is not."""
    repository = StreamingMemoryRepository(uri)
    repository.bucket.before = nth(1, "put", Busy())
    repository.log_artifact_from_stream(Dribble(LARGE), "file.bin", "s")
    assert content_of(repository) == LARGE
    publish = repository.backend.publish
    failures: Iterator[bool] = iter([True])

    def fail(*args: object) -> object:
        if next(failures, False):
            raise Busy
        return publish(*args)

    repository.backend.publish = fail
    with pytest.raises(MlflowException):
        repository.log_artifact_from_stream(Dribble(LARGE), "file.bin", "s")
    assert repository.bucket.count("put") == 3, "a stream that was read is not sent again from its middle"


def test_a_stream_beyond_the_most_parts_is_refused(repository: MemoryRepository) -> None:
    repository.backend.max_parts = 3
    with pytest.raises(MlflowException, match="stream of unknown length"):
        repository.log_artifact_from_stream(Dribble(LARGE), "file.bin")
    assert not repository.bucket.objects
    assert not repository.bucket.uploads


def test_folders_in_the_name_of_a_stream_do_not_matter(repository: MemoryRepository) -> None:
    """As MLflow's mixin documents it; a name that leads out is refused."""
    repository.log_artifact_from_stream(io.BytesIO(b"x"), "some/where/file.bin", "s")
    assert content_of(repository) == b"x"
    with pytest.raises(MlflowException):
        repository.log_artifact_from_stream(io.BytesIO(b"x"), "..", "s")


@pytest.mark.parametrize("kind", [MemoryRepository, StreamingMemoryRepository])
def test_a_stream_that_arrives_damaged_does_not_stay(uri: str, kind: type[MemoryRepository]) -> None:
    repository = kind(uri)
    publish = repository.backend.publish
    repository.backend.publish = lambda path, content, content_type: publish(path, damaged(content), content_type)
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact_from_stream(Dribble(LARGE), "file.bin", "s")
    assert caught.value.error_code == "DATA_LOSS"
    assert not repository.bucket.objects
    assert not repository.bucket.uploads
