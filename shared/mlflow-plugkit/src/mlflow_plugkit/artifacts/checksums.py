"""Checksums: of bytes as they pass, of files, of ranges that arrive in any order.

CRCs are computed by fastcrc (SIMD, tens of GB/s), so that checking content costs nothing that a transfer
would notice; `md5` and `sha256` by hashlib, which lets other threads run meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from mlflow_plugkit.artifacts.backend import MEBIBYTE, Digest, Source
from mlflow_plugkit.requirements import require

Buffer = bytes | bytearray | memoryview

# Name: fastcrc's module and function, and the reflected polynomial without its highest term (RevEng catalogue:
# CRC-32/ISCSI and CRC-64/XZ).
_CRCS = {"crc32c": ("crc32", "iscsi", 0x82F63B78), "crc64": ("crc64", "xz", 0xC96C5795D7870F42)}


class Hasher(Protocol):
    """What `hasher` returns: like a `hashlib` object."""

    def update(self, data: Buffer, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Lower-case hexadecimal of all bytes so far."""


def hasher(algorithm: str) -> Hasher:
    """A new hasher for `md5`, `sha256`, `crc32c` or `crc64` (ECMA-182, reflected).

    Raises:
        ValueError: no such algorithm.
        MlflowException: `FEATURE_DISABLED`, where fastcrc is missing.
    """
    if algorithm in _CRCS:
        return _Crc(algorithm)
    if algorithm in ("md5", "sha256"):
        return hashlib.new(algorithm, usedforsecurity=False)
    raise ValueError(f"no checksum algorithm {algorithm!r}: there are md5, sha256, crc32c and crc64")


class _Crc:
    def __init__(self, algorithm: str) -> None:
        self._function, self._digits, self._value = _crc_function(algorithm), _width(algorithm) // 4, 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._digits}x}"


@lru_cache
def _crc_function(algorithm: str) -> Callable[[Buffer, int], int]:
    module, name, _ = _CRCS[algorithm]
    fastcrc = require("fastcrc", distribution="mlflow-plugkit", extra="artifacts")
    function: Callable[[Buffer, int], int] = getattr(getattr(fastcrc, module), name)
    return function


def digest_of_bytes(data: Buffer, algorithm: str) -> Digest:
    """The digest of bytes."""
    total = hasher(algorithm)
    total.update(data)
    return Digest(algorithm, total.hexdigest())


def digest_of(source: Source, algorithm: str) -> Digest:
    """The digest of a rewindable source, read in pieces of 1 MiB."""
    total, buffer = hasher(algorithm), bytearray(min(MEBIBYTE, (source.size or MEBIBYTE) + 1))
    view = memoryview(buffer)
    with source.open() as reader:
        while count := reader.readinto(view):  # type: ignore[attr-defined] # every reader of a Source has it
            total.update(view[:count])
    return Digest(algorithm, total.hexdigest())


def can_combine(algorithm: str) -> bool:
    """Whether `combine` works for it: for the CRCs."""
    return algorithm in _CRCS


def combine(algorithm: str, pieces: Sequence[tuple[str, int]]) -> str:
    """The CRC of pieces put together, from each piece's CRC (hexadecimal) and length in bytes."""
    total = 0
    for value, length in pieces:
        total = _multiply(algorithm, _shift(algorithm, length), total) ^ int(value, 16)
    return f"{total:0{_width(algorithm) // 4}x}"


def composite(algorithm: str, values: Sequence[str]) -> str:
    """The checksum of the concatenated checksums of parts, as S3's multipart ETag is one."""
    total = hasher(algorithm)
    total.update(b"".join(bytes.fromhex(value) for value in values))
    return total.hexdigest()


def _width(algorithm: str) -> int:
    return 64 if algorithm == "crc64" else 32


def _multiply(algorithm: str, a: int, b: int) -> int:
    """The product of two polynomials modulo the CRC's, all of them reflected (the highest bit is x^0)."""
    polynomial, product, mask = _CRCS[algorithm][2], 0, 1 << (_width(algorithm) - 1)
    while mask:
        if a & mask:
            product ^= b
        b = (b >> 1) ^ polynomial if b & 1 else b >> 1
        mask >>= 1
    return product


@lru_cache(maxsize=64)
def _shift(algorithm: str, length: int) -> int:
    """x^(8 * length) modulo the CRC's polynomial: what appending `length` bytes does to a CRC."""
    one = 1 << (_width(algorithm) - 1)
    result, power, exponent = one, one >> 1, 8 * length
    while exponent:
        if exponent & 1:
            result = _multiply(algorithm, result, power)
        power = _multiply(algorithm, power, power)
        exponent >>= 1
    return result


def same(one: Digest | None, other: Digest | None) -> bool | None:
    """Whether two digests are equal; None where they cannot be compared."""
    if one is None or other is None or (one.algorithm, one.part_size) != (other.algorithm, other.part_size):
        return None
    return one.value == other.value
