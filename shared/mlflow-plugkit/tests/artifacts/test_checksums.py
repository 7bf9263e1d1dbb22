"""Checksums: known values, and the CRC of pieces put together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_plugkit.artifacts.backend import Source, StoredObject
from mlflow_plugkit.artifacts.checksums import (
    can_combine,
    combine,
    composite,
    digest_of,
    digest_of_bytes,
    hasher,
    same,
)
from mlflow_plugkit.artifacts.verification import RangeDigests

ALGORITHMS = ["md5", "sha256", "crc32c", "crc64"]
# The check values of the RevEng catalogue for CRC-32/ISCSI and CRC-64/XZ, and hashlib's own.
KNOWN = {
    "crc32c": "e3069283",
    "crc64": "995dc9bbdf1939fa",
    "md5": hashlib.md5(b"123456789").hexdigest(),
    "sha256": hashlib.sha256(b"123456789").hexdigest(),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_check_value_is_right_whatever_the_pieces(algorithm: str) -> None:
    assert digest_of_bytes(b"123456789", algorithm).value == KNOWN[algorithm]
    total = hasher(algorithm)
    for piece in (b"", b"1234", memoryview(b"56"), bytearray(b"789")):
        total.update(piece)
    assert total.hexdigest() == KNOWN[algorithm]


@pytest.mark.parametrize(("algorithm", "digits"), [("crc32c", 8), ("crc64", 16), ("md5", 32), ("sha256", 64)])
def test_values_have_all_their_digits(algorithm: str, digits: int) -> None:
    assert all(len(digest_of_bytes(bytes([n]), algorithm).value) == digits for n in range(256))


def test_an_unknown_algorithm_is_an_error() -> None:
    with pytest.raises(ValueError, match="crc64"):
        hasher("adler32")


@pytest.mark.parametrize("algorithm", ["crc32c", "crc64"])
@given(pieces=st.lists(st.binary(max_size=70), max_size=6))
def test_the_crc_of_pieces_is_that_of_the_whole(algorithm: str, pieces: list[bytes]) -> None:
    assert can_combine(algorithm)
    values = [(digest_of_bytes(piece, algorithm).value, len(piece)) for piece in pieces]
    assert combine(algorithm, values) == digest_of_bytes(b"".join(pieces), algorithm).value


@pytest.mark.parametrize("algorithm", ["crc32c", "crc64"])
def test_pieces_may_be_longer_than_any_memory(algorithm: str) -> None:
    """A tebibyte and a half of zeros, put together by doubling, is what pieces of unequal length make of it."""
    one = digest_of_bytes(bytes(1024), algorithm).value
    value, length = one, 1024
    while length < 2**40:
        value, length = combine(algorithm, [(value, length), (value, length)]), 2 * length
    half = combine(algorithm, [(one, 1024)] * 2)
    assert combine(algorithm, [(value, length), (half, 2048)]) == combine(algorithm, [(half, 2048), (value, length)])


@given(content=st.binary(max_size=300), cut=st.integers(1, 60), order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ranges_that_arrive_in_any_order_verify(
    algorithm: str, content: bytes, cut: int, order, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("ranges") / "file"
    file.write_bytes(content)
    ranges = [(start, min(cut, len(content) - start)) for start in range(0, max(len(content), 1), cut)]
    stored = StoredObject("x", len(content), None, digest_of_bytes(content, algorithm))
    digests = RangeDigests(stored, ranges, str(file))
    numbers = list(range(len(ranges)))
    order.shuffle(numbers)
    for number in numbers:
        total, (start, length) = digests.hasher_of(number), ranges[number]
        if total is not None:
            total.update(content[start : start + length])
        digests.finish(number)
    digests.verify()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_slice_of_a_file_has_its_own_digest(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"xx123456789yy")
    assert digest_of(Source(file=tmp_path / "file").slice(2, 9), algorithm).value == KNOWN[algorithm]
    assert digest_of(Source(data=b"123456789"), algorithm).value == KNOWN[algorithm]


def test_the_composite_is_that_of_s3() -> None:
    """The ETag of a multipart upload: the MD5 of the concatenated binary MD5s."""
    parts = [b"a" * 10, b"b" * 3]
    wanted = hashlib.md5(b"".join(hashlib.md5(p).digest() for p in parts)).hexdigest()
    assert composite("md5", [digest_of_bytes(p, "md5").value for p in parts]) == wanted


def test_digests_of_different_kinds_are_not_compared() -> None:
    md5, crc = digest_of_bytes(b"x", "md5"), digest_of_bytes(b"x", "crc32c")
    assert same(md5, crc) is None
    assert same(md5, None) is None
    assert same(md5, digest_of_bytes(b"x", "md5")) is True
    assert same(md5, digest_of_bytes(b"y", "md5")) is False
