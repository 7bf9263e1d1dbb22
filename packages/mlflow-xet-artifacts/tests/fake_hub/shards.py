"""What hf_xet's local storage holds: the xet hash of each file, found by the SHA-256 of its content.

Read from the shards (`.mdb`) that hf_xet writes at the end of each upload. A shard begins with a header of
48 bytes; then each file has a header of 48 bytes (its hash, flags, the number of segments), 48 bytes for each
segment, the same again for verification if bit 31 of the flags is set, and 48 bytes that begin with the SHA-256
if bit 30 is. A hash of all ones ends the list (xet-core, `mdb_shard`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

RECORD = 48
END = b"\xff" * 32


class Shards:
    """An index of the shards below a folder, read once each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[Path] = set()
        self._by_sha256: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    def xet_hash(self, sha256: str) -> str | None:
        """The xet hash of the content with this SHA-256, or None where it was never uploaded."""
        self._refresh()
        return self._by_sha256.get(sha256)

    def holds(self, xet_hash: str) -> bool:
        """Whether content of this xet hash was uploaded."""
        self._refresh()
        return xet_hash in self._sizes

    def size(self, xet_hash: str) -> int:
        """Bytes of the content of this xet hash."""
        return self._sizes[xet_hash]

    def stored_bytes(self) -> int:
        """Bytes of the content that is stored, as it is kept (deduplicated and compressed)."""
        return sum(file.stat().st_size for file in self.content_files())

    def content_files(self) -> list[Path]:
        """The files that hold content: xorbs, in xet-core's word."""
        return [file for file in self._folder.glob("xet/xorbs/xorbs/**/*") if file.is_file()]

    def _refresh(self) -> None:
        for file in set(self._folder.rglob("*.mdb")) - self._read:
            for xet_hash, size, sha256 in _files(file.read_bytes()):
                self._sizes[xet_hash] = size
                if sha256:
                    self._by_sha256[sha256] = xet_hash
            self._read.add(file)


def _files(shard: bytes) -> Iterator[tuple[str, int, str | None]]:
    position = RECORD
    while (file_hash := shard[position : position + 32]) != END and len(file_hash) == 32:
        flags, segments = struct.unpack_from("<II", shard, position + 32)
        position += RECORD
        size = sum(struct.unpack_from("<I", shard, position + RECORD * n + 36)[0] for n in range(segments))
        position += RECORD * segments * (2 if flags >> 31 & 1 else 1)
        sha256 = None
        if flags >> 30 & 1:
            sha256 = _text(shard[position : position + 32])
            position += RECORD
        yield _text(file_hash), size, sha256


def _text(value: bytes) -> str:
    """A hash as xet-core prints it: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", value))
