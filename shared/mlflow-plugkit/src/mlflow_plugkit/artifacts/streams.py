"""Uploads of streams of unknown length, also from an event loop."""

from __future__ import annotations

import io
import tempfile
from typing import BinaryIO

from mlflow_plugkit.artifacts.backend import MultipartBackend, Part, Source, Upload
from mlflow_plugkit.artifacts.engine import Engine
from mlflow_plugkit.artifacts.uploads import upload


def upload_stream(engine: Engine, path: str, stream: BinaryIO, content_type: str | None) -> None:
    """Upload a stream: whole where it is short, in parts or through a temporary file where it is not."""
    backend = engine.backend
    first = read_exactly(stream, backend.part_size)
    if len(first) < backend.part_size:
        upload(engine, Upload(path, Source(data=first), content_type))
    elif backend.streams:
        with engine.applied(f"upload {path!r}"):
            backend.put(path, Source(stream=io.BufferedReader(_Rest(first, stream))), content_type)
    elif isinstance(backend, MultipartBackend):
        with engine.applied(f"upload {path!r}"):
            _in_parts(engine, backend, path, first, stream, content_type)
    else:
        with tempfile.NamedTemporaryFile(prefix="plugkit-") as spool:
            while first:
                spool.write(first)
                first = stream.read(1 << 20)
            spool.flush()
            upload(engine, Upload(path, Source(file=spool.name), content_type))


def _in_parts(
    engine: Engine, backend: MultipartBackend, path: str, data: bytes, stream: BinaryIO, content_type: str | None
) -> None:
    upload_id = engine.call(backend.create_multipart, path, content_type, None)
    parts: list[Part] = []
    try:
        while data:
            parts.append(engine.call(backend.put_part, path, upload_id, len(parts) + 1, Source(data=data)))
            data = read_exactly(stream, backend.part_size)
        engine.call(backend.complete_multipart, path, upload_id, parts)
    except BaseException:
        backend.abort_multipart(path, upload_id)
        raise


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; fewer only at the end."""
    pieces, left = [], size
    while left and (piece := stream.read(min(left, 1 << 20))):
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
