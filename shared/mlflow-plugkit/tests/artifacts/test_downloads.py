"""Downloads are complete and verified, or they do not appear."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from memory import Busy, Denied, MemoryRepository, Truncated, always, damaged, nth
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import Digest, StoredObject
from mlflow_plugkit.artifacts.checksums import composite, digest_of_bytes

LARGE = os.urandom(300_000)
ALGORITHMS = ["md5", "sha256", "crc32c", "crc64"]


def stored(repository: MemoryRepository, content: bytes, path: str = "a/file.bin") -> str:
    repository.backend.publish(path, content, None)
    return path


def fetch(repository: MemoryRepository, path: str, folder: Path) -> bytes:
    target = folder / "target.bin"
    repository._download_file(path, str(target))
    assert [p.name for p in folder.iterdir()] == ["target.bin"], "a draft was left beside the download"
    return target.read_bytes()


def fails(repository: MemoryRepository, path: str, folder: Path) -> str:
    with pytest.raises(MlflowException) as caught:
        repository._download_file(path, str(folder / "target.bin"))
    assert not list(folder.iterdir()), "a failed download left a file"
    return str(caught.value.error_code)


@pytest.mark.parametrize("size", [0, 1, 127 * 1024, 128 * 1024, 300_000])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_content_of_any_size_arrives(repository: MemoryRepository, tmp_path: Path, size: int, algorithm: str) -> None:
    repository.backend.checksum = algorithm
    path = stored(repository, LARGE[:size])
    assert fetch(repository, path, tmp_path) == LARGE[:size]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [1000, 300_000])
def test_one_changed_byte_is_noticed_and_mended(
    repository: MemoryRepository, tmp_path: Path, size: int, algorithm: str
) -> None:
    """The first attempt comes damaged; the second is what is stored."""
    repository.backend.checksum = algorithm
    path = stored(repository, LARGE[:size])
    left = [True]

    def flip(chunk: bytes) -> bytes:
        return damaged(chunk) if left and left.pop() else chunk

    repository.bucket.mangle = flip
    assert fetch(repository, path, tmp_path) == LARGE[:size]


@pytest.mark.parametrize("size", [1000, 300_000])
def test_lasting_damage_is_an_error(repository: MemoryRepository, tmp_path: Path, size: int) -> None:
    path = stored(repository, LARGE[:size])
    repository.bucket.mangle = damaged
    assert fails(repository, path, tmp_path) == "DATA_LOSS"


def test_the_digest_of_parts_verifies(repository: MemoryRepository, tmp_path: Path, monkeypatch) -> None:
    """As S3 gives it for a multipart upload: the MD5 of the MD5s of parts."""
    path, size = stored(repository, LARGE), 50_000
    parts = [digest_of_bytes(LARGE[n : n + size], "md5").value for n in range(0, len(LARGE), size)]
    digest = Digest("md5", composite("md5", parts), size)
    monkeypatch.setattr(repository.backend, "head", lambda p: StoredObject(p, len(LARGE), None, digest))
    assert fetch(repository, path, tmp_path) == LARGE
    repository.bucket.mangle = lambda chunk: chunk[:-1] + bytes([chunk[-1] ^ 1])
    (tmp_path / "target.bin").unlink()
    assert fails(repository, path, tmp_path) == "DATA_LOSS"


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_a_broken_connection_goes_on_where_it_stopped(repository: MemoryRepository, tmp_path: Path, size: int) -> None:
    path = stored(repository, LARGE[:size])
    repository.bucket.before = nth(5, "chunk", ConnectionResetError("gone"))
    assert fetch(repository, path, tmp_path) == LARGE[:size]
    chunks = -(-size // 10_000) if size < 128 * 1024 else sum(-(-n // 10_000) for n in _parts(size))
    assert repository.bucket.count("chunk") <= chunks + 2, "a broken range was read from its start again"


def _parts(size: int) -> list[int]:
    return [min(64 * 1024, size - start) for start in range(0, size, 64 * 1024)]


def test_a_connection_that_breaks_again_and_again_is_survived_while_it_makes_progress(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    """More breaks than attempts: each brings enough for the count to begin anew."""
    repository.backend.serial_reads = True
    content = os.urandom(2_000_000)
    path, seen = stored(repository, content), [0]

    def break_often(operation: str, _: str) -> None:
        seen[0] += operation == "chunk"
        if operation == "chunk" and seen[0] % 15 == 0:
            raise ConnectionResetError

    repository.bucket.before = break_often
    assert fetch(repository, path, tmp_path) == content
    assert repository.bucket.count("read") > repository.backend.retry_attempts


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_a_short_answer_is_completed(repository: MemoryRepository, tmp_path: Path, size: int) -> None:
    """The body ends early without an error, as a proxy does it."""
    path = stored(repository, LARGE[:size])
    repository.bucket.before = nth(3, "chunk", Truncated())
    assert fetch(repository, path, tmp_path) == LARGE[:size]


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_a_lasting_short_answer_is_an_error(repository: MemoryRepository, tmp_path: Path, size: int) -> None:
    path = stored(repository, LARGE[:size])
    repository.bucket.before = always("chunk", Truncated)
    assert fails(repository, path, tmp_path) == "TEMPORARILY_UNAVAILABLE"


def test_more_bytes_than_stored_are_an_error(repository: MemoryRepository, tmp_path: Path) -> None:
    path = stored(repository, LARGE[:1000])
    repository.backend.checksum = None
    repository.bucket.mangle = lambda chunk: chunk + b"x"
    assert fails(repository, path, tmp_path) == "DATA_LOSS"


def test_an_object_that_is_replaced_meanwhile_comes_in_one_version(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    """Ranges are pinned to a version; when it is gone, the download begins anew with the next."""
    path, new = stored(repository, LARGE), os.urandom(300_000)
    replaced = nth(12, "chunk", RuntimeError())

    def replace(operation: str, name: str) -> None:
        try:
            replaced(operation, name)
        except RuntimeError:
            repository.backend.publish(path, new, None)

    repository.bucket.before = replace
    assert fetch(repository, path, tmp_path) == new


def test_a_folder_is_downloaded_without_a_head_for_each_file(repository: MemoryRepository, tmp_path: Path) -> None:
    for number in range(20):
        stored(repository, b"x" * number, f"many/{number}.txt")
    repository.download_artifacts("many", str(tmp_path))
    assert repository.bucket.count("head") == 0, "the listing said enough to verify the files"
    assert len(list((tmp_path / "many").iterdir())) == 20


def test_a_listing_that_is_out_of_date_does_no_harm(repository: MemoryRepository, tmp_path: Path) -> None:
    path = stored(repository, b"old")
    repository.list_artifacts("a")
    stored(repository, b"the new content")
    assert fetch(repository, path, tmp_path) == b"the new content"


def test_a_file_that_was_deleted_since_the_listing_is_missing(repository: MemoryRepository, tmp_path: Path) -> None:
    path = stored(repository, b"old")
    repository.list_artifacts("a")
    repository.bucket.objects.clear()
    assert fails(repository, path, tmp_path) == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("operation", ["head", "read", "chunk"])
@pytest.mark.parametrize(("error", "code"), [(Busy, "TEMPORARILY_UNAVAILABLE"), (Denied, "PERMISSION_DENIED")])
def test_lasting_errors_are_mapped(
    repository: MemoryRepository, tmp_path: Path, operation: str, error: Callable[[], Exception], code: str
) -> None:
    path = stored(repository, LARGE)
    repository.bucket.before = always(operation, error)
    assert fails(repository, path, tmp_path) == code


def test_an_older_local_file_stays_until_the_new_one_is_complete(repository: MemoryRepository, tmp_path: Path) -> None:
    path = stored(repository, LARGE)
    (tmp_path / "target.bin").write_bytes(b"older")
    repository.bucket.before = always("chunk", Denied)
    with pytest.raises(MlflowException):
        repository._download_file(path, str(tmp_path / "target.bin"))
    assert (tmp_path / "target.bin").read_bytes() == b"older"
    repository.bucket.before = lambda operation, path: None
    assert fetch(repository, path, tmp_path) == LARGE


def test_downloads_have_the_permissions_of_new_files(repository: MemoryRepository, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"")
    wanted = (tmp_path / "new").stat().st_mode
    (tmp_path / "new").unlink()
    fetch(repository, stored(repository, b"x"), tmp_path)
    assert (tmp_path / "target.bin").stat().st_mode == wanted


def test_serial_reads_ask_for_one_range_at_a_time(repository: MemoryRepository, tmp_path: Path) -> None:
    repository.backend.serial_reads = True
    assert fetch(repository, stored(repository, LARGE), tmp_path) == LARGE
    assert repository.bucket.count("read") == 1
