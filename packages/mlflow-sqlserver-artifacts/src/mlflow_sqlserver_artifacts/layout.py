"""How paths and content are laid out in rows: pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from mlflow_plugkit.errors import mlflow_error
from mlflow_sqlserver_artifacts.tables import NAME_LENGTH, PATH_LENGTH


def key_of(path: str) -> bytes:
    """The key of a file or folder: the SHA-256 of its whole path in the database."""
    return hashlib.sha256(path.encode()).digest()


def parent_of(path: str) -> str:
    """The folder that holds a file or folder, "" for the top."""
    return path.rpartition("/")[0]


def chain_of(folder: str) -> list[str]:
    """A folder and those that it lies in, from the top down, without the top itself."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def check_length(path: str) -> None:
    """Refuse what does not fit the columns, before anything is sent.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    name = path.rpartition("/")[2]
    for text, what, most in ((name, "name", NAME_LENGTH), (path, "path", PATH_LENGTH)):
        if len(text.encode("utf-16-le")) // 2 > most:
            raise mlflow_error(f"The artifact {what} {text[:80]!r}… is longer than {most} characters. Shorten it.")


@dataclass(frozen=True)
class Layout:
    """Where an upload's content lies: parts of `part_size` bytes (0: one part), each in chunks of `chunk_size`.

    As text, it is the version of a stored file: another upload is another version.
    """

    upload: int
    chunk_size: int
    part_size: int

    def __str__(self) -> str:
        return f"{self.upload}-{self.chunk_size}-{self.part_size}"

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read what `str` wrote."""
        upload, chunk_size, part_size = (int(number) for number in text.split("-"))
        return cls(upload, chunk_size, part_size)

    def windows(self, start: int, end: int, most: int) -> Iterator[tuple[int, int, int, int]]:
        """The chunks that hold the bytes from `start` to `end`, at most `most` of them at a time.

        Yields:
            part, first chunk, last chunk, and the offset in the content at which the first chunk begins.
        """
        while start < end:
            part = start // self.part_size if self.part_size else 0
            base = part * self.part_size
            stop = min(end, base + self.part_size) if self.part_size else end
            first = (start - base) // self.chunk_size
            last = min(first + most - 1, (stop - base - 1) // self.chunk_size)
            yield part + 1, first, last, base + first * self.chunk_size
            start = min(stop, base + (last + 1) * self.chunk_size)


def batches(
    reader: BinaryIO, chunk_size: int, batch_size: int, total: Any
) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """The rows of a part's chunks, a batch at a time, and whether the batch is the last one.

    Args:
        reader: content; may give less than it is asked for before its end.
        chunk_size: bytes of a chunk; the last one may be shorter.
        batch_size: bytes of a batch, which holds at least one chunk.
        total: a hash object that is fed all of the content, or None.
    """
    number = 0
    ahead = _read(reader, chunk_size)
    ended = False
    while not ended:
        rows: list[dict[str, Any]] = []
        while ahead and len(rows) * chunk_size < batch_size:
            if total is not None:
                total.update(ahead)
            rows.append({"number": number, "size": len(ahead), "sha256": hashlib.sha256(ahead).digest(), "data": ahead})
            number += 1
            ahead = _read(reader, chunk_size) if len(ahead) == chunk_size else b""
        ended = not ahead
        yield rows, ended


def _read(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) == size or not data:
        return data
    pieces, left = [data], size - len(data)
    while left and (more := reader.read(left)):
        pieces.append(more)
        left -= len(more)
    return b"".join(pieces)
