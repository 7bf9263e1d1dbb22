"""A source and its slices give exactly their bytes, as often as they are opened."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_plugkit.artifacts.backend import Source


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "file"
    path.write_bytes(bytes(range(256)) * 20)
    return path


@given(start=st.integers(0, 5120), size=st.integers(0, 5120), reads=st.lists(st.integers(1, 3000), max_size=5))
def test_a_slice_reads_its_bytes_and_no_more(file: Path, start: int, size: int, reads: list[int]) -> None:
    content = file.read_bytes()
    size = min(size, len(content) - start)
    source = Source(file=file).slice(start, size)
    with source.open() as reader:
        assert b"".join([*(reader.read(n) for n in reads), reader.read()]) == content[start : start + size]
        reader.seek(0, os.SEEK_END)
        assert reader.tell() == size, "HTTP clients measure a body by seeking"
        reader.seek(0)
        assert reader.read() == content[start : start + size]
    assert source.read() == content[start : start + size]
    assert Source(data=content).slice(start, size).read() == content[start : start + size]


def test_a_slice_of_a_slice_stays_inside(file: Path) -> None:
    assert Source(file=file).slice(10, 100).slice(5, 10).read() == file.read_bytes()[15:25]


def test_a_stream_can_be_opened_only_as_it_is() -> None:
    source = Source(stream=io.BytesIO(b"x"))
    assert not source.rewindable
    assert source.size is None
    with pytest.raises(ValueError, match="stream"):
        source.slice(0, 1)


def test_a_source_is_made_of_one_thing() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Source()
    with pytest.raises(ValueError, match="exactly one"):
        Source(data=b"", stream=io.BytesIO())
