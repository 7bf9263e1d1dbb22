"""Checksums by name: `md5`, `sha256`, `crc32c` and `crc64` (ECMA-182, reflected)."""

from __future__ import annotations

import hashlib
from typing import Protocol

from mlflow_plugkit.artifacts.backend import MEBIBYTE, Digest, Source
from mlflow_plugkit.requirements import require


class Hasher(Protocol):
    """What `hasher` returns: like a `hashlib` object."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Lower-case hexadecimal of all bytes so far."""


def hasher(algorithm: str) -> Hasher:
    """A new hasher for `md5`, `sha256`, `crc32c` (needs google-crc32c) or `crc64` (needs crcmod-plus).

    Raises:
        ValueError: no such algorithm.
        MlflowException: `FEATURE_DISABLED`, where the library is missing.
    """
    if algorithm == "crc32c":
        return _Crc32c()
    if algorithm == "crc64":
        return _Crc64()
    if algorithm in ("md5", "sha256"):
        return hashlib.new(algorithm, usedforsecurity=False)
    raise ValueError(f"no checksum algorithm {algorithm!r}: there are md5, sha256, crc32c and crc64")


def digest_of(source: Source, algorithm: str) -> Digest:
    """The digest of a rewindable source."""
    total = hasher(algorithm)
    with source.open() as reader:
        while data := reader.read(MEBIBYTE):
            total.update(data)
    return Digest(algorithm, total.hexdigest())


class _Crc32c:
    def __init__(self) -> None:
        self._extend = require("google_crc32c", distribution="google-crc32c").extend
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._extend(self._value, bytes(data))

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc64:
    def __init__(self) -> None:
        crcmod = require("crcmod", distribution="crcmod-plus")
        self._function = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, rev=True, xorOut=0xFFFFFFFFFFFFFFFF)
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:016x}"
