"""Whether what was downloaded is what is stored: by length and digest, without reading it twice where possible."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from mlflow_plugkit.artifacts.backend import Digest, Source, StoredObject
from mlflow_plugkit.artifacts.checksums import Hasher, can_combine, combine, composite, digest_of, hasher
from mlflow_plugkit.artifacts.retries import CorruptTransferError


class RangeDigests:
    """The digest of a file whose ranges arrive in any order.

    A CRC and a digest of parts are put together from those of the ranges, hashed as their bytes pass. Any other
    digest needs the bytes in order: whoever finishes the range that is next in order reads it back and hashes it,
    while others still download.

    Args:
        stored: what is downloaded.
        ranges: (start, length) of each; for a digest of parts, the parts.
        file: where the bytes are written.
    """

    def __init__(self, stored: StoredObject, ranges: Sequence[tuple[int, int]], file: str) -> None:
        self._stored, self._ranges, self._file = stored, ranges, file
        digest = stored.digest
        self._in_order = digest is not None and not (
            len(ranges) == 1 or digest.part_size is not None or can_combine(digest.algorithm)
        )
        self._hashers: dict[int, Hasher] = {}
        self._whole = hasher(digest.algorithm) if digest and self._in_order else None
        self._lock, self._arrived, self._next, self._busy = threading.Lock(), set[int](), 0, False

    def hasher_of(self, number: int) -> Hasher | None:
        """What the bytes of a range must pass through; None where that is not needed."""
        if self._stored.digest is None or self._in_order:
            return None
        self._hashers[number] = total = hasher(self._stored.digest.algorithm)
        return total

    def finish(self, number: int) -> None:
        """A range has arrived."""
        if not self._in_order:
            return
        with self._lock:
            self._arrived.add(number)
            if self._busy:
                return
            self._busy = True
        while True:
            with self._lock:
                if self._next not in self._arrived:
                    self._busy = False
                    return
                number, self._next = self._next, self._next + 1
            self._read_back(*self._ranges[number])

    def _read_back(self, start: int, length: int) -> None:
        assert self._whole is not None
        with Source(file=self._file, start=start, size=length).open() as reader:
            while data := reader.read(1 << 20):
                self._whole.update(data)

    def verify(self) -> None:
        """Compare with the stored object, when all ranges have arrived.

        Raises:
            CorruptTransferError: they differ.
        """
        digest = self._stored.digest
        if digest is not None and self._value(digest) != digest.value:
            raise damaged(self._stored, digest)

    def _value(self, digest: Digest) -> str:
        if self._whole is not None:
            return self._whole.hexdigest()
        values = [self._hashers[number].hexdigest() for number in range(len(self._ranges))]
        if digest.part_size is not None:
            return composite(digest.algorithm, values)
        if len(values) == 1:
            return values[0]
        return combine(digest.algorithm, [(v, length) for v, (_, length) in zip(values, self._ranges, strict=True)])


def verify_file(stored: StoredObject, file: str) -> None:
    """Compare a file that a backend downloaded by its own means with the stored object.

    Raises:
        CorruptTransferError: length or digest differ.
    """
    size = os.path.getsize(file)
    if size != stored.size:
        raise CorruptTransferError(f"{stored.path!r} came with {size} bytes instead of {stored.size}")
    if stored.digest is not None and file_digest(file, size, stored.digest) != stored.digest.value:
        raise damaged(stored, stored.digest)


def file_digest(file: str, size: int, like: Digest) -> str:
    """The value of a file's digest, of the whole or of parts as `like` is."""
    step = like.part_size or max(size, 1)
    pieces = [Source(file=file, start=start, size=min(step, size - start)) for start in range(0, max(size, 1), step)]
    values = [digest_of(piece, like.algorithm).value for piece in pieces]
    return values[0] if like.part_size is None else composite(like.algorithm, values)


def damaged(stored: StoredObject, digest: Digest) -> CorruptTransferError:
    """The error for content that is not what its digest says."""
    return CorruptTransferError(f"the {digest.algorithm} of {stored.path!r} is not that of the stored content")
