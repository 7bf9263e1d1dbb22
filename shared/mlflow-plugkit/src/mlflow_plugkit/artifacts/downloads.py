"""Downloads: in ranges, verified, and visible under the final name only when complete."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import nullcontext, suppress
from io import FileIO

from mlflow_plugkit.artifacts.backend import FileBackend, StoredObject
from mlflow_plugkit.artifacts.engine import Engine, StoppedError, gather
from mlflow_plugkit.artifacts.progress import NONE, Progress, of_bytes
from mlflow_plugkit.artifacts.retries import CorruptTransferError, TransferError
from mlflow_plugkit.artifacts.verification import RangeDigests, verify_file
from mlflow_plugkit.errors import mlflow_error

#: How often a download is begun in all, where the object was replaced meanwhile or arrived damaged.
BEGINNINGS = 3

#: Bytes that a broken attempt must have brought for the next one to count as the first again.
ENOUGH = 64 * 1024


def download(engine: Engine, path: str, local_path: str, known: StoredObject | None = None) -> None:
    """Download an object to a draft beside `local_path`, verify it, and give it its name.

    Args:
        engine: the repository's.
        path: a clean artifact path.
        local_path: in a folder that exists; an older file there is replaced.
        known: what a listing said of the object, where that is enough to verify the content.

    Raises:
        MlflowException: `RESOURCE_DOES_NOT_EXIST`. Errors of the backend as they are.
    """
    stored = known or _head(engine, path)
    draft = os.path.join(os.path.dirname(local_path), f".plugkit-{secrets.token_hex(6)}.part")
    try:
        for left in reversed(range(BEGINNINGS)):
            try:
                _fetch(engine, stored, draft)
                break
            except Exception as error:
                again = _look_again(engine, stored, error) if left else None
                if again is None:
                    raise
                stored = again
        os.replace(draft, local_path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(draft)
        raise


def _head(engine: Engine, path: str) -> StoredObject:
    stored = engine.call(engine.backend.head, path)
    if stored is None:
        raise mlflow_error(f"There is no artifact {path!r}.", "RESOURCE_DOES_NOT_EXIST")
    return stored


def _look_again(engine: Engine, stored: StoredObject, error: Exception) -> StoredObject | None:
    """The object to begin anew with: another version than the one that failed, or the one that came damaged."""
    corrupt = isinstance(error, CorruptTransferError)
    if not corrupt and engine.retries.may_help(error):
        return None  # an outage, and the attempts are used up
    fresh = _head(engine, stored.path)
    return fresh if corrupt or fresh != stored else None


def _fetch(engine: Engine, stored: StoredObject, draft: str) -> None:
    backend = engine.backend
    is_small = stored.size < backend.multipart_threshold
    with nullcontext(NONE) if is_small else of_bytes(stored.path, stored.size, "Downloading") as progress:
        if isinstance(backend, FileBackend):
            engine.call(backend.get_file, stored, draft, progress.add)
            verify_file(stored, draft)
        else:
            _Ranges(engine, stored, draft, progress).fetch()


class _Ranges:
    """One download in ranges, each of which goes on where its connection broke."""

    def __init__(self, engine: Engine, stored: StoredObject, draft: str, progress: Progress) -> None:
        self._engine, self._stored, self._draft, self._progress = engine, stored, draft, progress
        self._stop = threading.Event()
        backend, digest, size = engine.backend, stored.digest, stored.size
        self._in_parallel = not backend.serial_reads and size >= backend.multipart_threshold
        step = backend.part_size if self._in_parallel else max(size, 1)
        step = digest.part_size if digest and digest.part_size else step
        self._ranges = [(start, min(step, size - start)) for start in range(0, max(size, 1), step)]
        self._digests = RangeDigests(stored, self._ranges, draft)

    def fetch(self) -> None:
        numbers = range(len(self._ranges))
        with open(self._draft, "wb", buffering=0) as file:
            if self._in_parallel and len(numbers) > 1:
                file.truncate(self._stored.size)
                with self._engine.parts.use() as pool:
                    gather([pool.submit(self._fetch_apart, number) for number in numbers], self._stop)
            else:
                for number in numbers:
                    self._fetch_range(number, file)
        self._digests.verify()

    def _fetch_apart(self, number: int) -> None:
        start, length = self._ranges[number]
        with self._engine.memory.take(length), open(self._draft, "r+b", buffering=0) as file:
            file.seek(start)
            self._fetch_range(number, file)

    def _fetch_range(self, number: int, file: FileIO) -> None:
        (start, length), done = self._ranges[number], 0
        total = self._digests.hasher_of(number)

        def read_on() -> None:
            nonlocal done
            if self._stored.verified_by_read:
                done = file.seek(start) - start
            path, version = self._stored.path, self._stored.version
            for chunk in self._engine.backend.read(path, start + done, length - done, version):
                if self._stop.is_set():
                    raise StoppedError
                if done + len(chunk) > length:
                    raise CorruptTransferError(f"{path!r} came with more bytes than are stored")
                write_all(file, chunk)
                done += len(chunk)
                if total is not None:
                    total.update(chunk)
                self._progress.add(len(chunk))
            if done < length:
                raise TransferError(f"the connection ended {length - done} bytes before the end of {path!r}")

        while done < length:
            before = done
            try:
                self._engine.call(read_on)
            except Exception as error:
                if done - before < ENOUGH or not self._engine.retries.may_help(error):
                    raise
        self._digests.finish(number)


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may take less at once."""
    written = file.write(data)
    while written < len(data):
        written += file.write(memoryview(data)[written:])
