"""Downloads: in ranges, verified, and visible under the final name only when complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress

from mlflow_plugkit.artifacts.backend import FileBackend, StoredObject
from mlflow_plugkit.artifacts.checksums import hasher
from mlflow_plugkit.artifacts.engine import Engine, gather
from mlflow_plugkit.artifacts.retries import TransferError


def download(engine: Engine, stored: StoredObject, local_path: str) -> None:
    """Download one object to a temporary file beside `local_path`, verify it, and move it there."""
    descriptor, temporary = tempfile.mkstemp(prefix=".plugkit-", suffix=".part", dir=os.path.dirname(local_path) or ".")
    os.close(descriptor)
    try:
        engine.retries.call(_fill, engine, stored, temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, local_path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def _fill(engine: Engine, stored: StoredObject, path: str) -> None:
    backend = engine.backend
    size = backend.part_size
    if isinstance(backend, FileBackend):
        backend.get_file(stored, path, lambda _: None)
    elif stored.size < backend.multipart_threshold or backend.serial_reads:
        _read_range(engine, stored, path, 0, stored.size)
    else:
        with engine.parts.use() as pool:
            ranges = [(start, min(size, stored.size - start)) for start in range(0, stored.size, size)]
            gather([pool.submit(_read_range, engine, stored, path, *each) for each in ranges])
    _verify(stored, path)


def _read_range(engine: Engine, stored: StoredObject, path: str, start: int, length: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(start)
        done = [0]
        while done[0] < length:
            engine.call(_copy, engine, stored, file.write, start, length, done)


def _copy(
    engine: Engine, stored: StoredObject, write: Callable[[bytes], int], start: int, length: int, done: list[int]
) -> None:
    for chunk in engine.backend.read(stored.path, start + done[0], length - done[0], stored.version):
        if done[0] + len(chunk) > length:
            raise TransferError(f"{stored.path!r}: more bytes came than were asked for")
        write(chunk)
        done[0] += len(chunk)
    if done[0] < length:
        raise TransferError(f"{stored.path!r}: the connection ended {length - done[0]} bytes early")


def _verify(stored: StoredObject, path: str) -> None:
    if os.path.getsize(path) != stored.size:
        raise TransferError(f"{stored.path!r}: the download has another length than the stored object")
    digest = stored.digest
    if digest is None or digest.part_size is not None:
        return
    total = hasher(digest.algorithm)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            total.update(data)
    if total.hexdigest() != digest.value:
        raise TransferError(f"{stored.path!r}: the download's {digest.algorithm} is not that of the stored object")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
