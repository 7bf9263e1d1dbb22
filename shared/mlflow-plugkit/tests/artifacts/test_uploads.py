"""Uploads are complete or they do not appear, whatever fails in them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import (
    BulkMemoryRepository,
    Busy,
    Denied,
    MemoryRepository,
    NoSuchUpload,
    WholeMemoryRepository,
    always,
    damaged,
    nth,
)
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import MEBIBYTE, StoredObject
from mlflow_plugkit.artifacts.multipart import part_size_for
from mlflow_plugkit.artifacts.retries import CorruptTransferError, StoredDamagedError

LARGE = os.urandom(300_000)
OPERATIONS = ["create", "part", "complete"]


def local(folder: Path, content: bytes, name: str = "file.bin") -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def content_of(repository: MemoryRepository, path: str = "root/file.bin") -> bytes:
    return repository.bucket.objects[path][0]


@pytest.mark.parametrize("kind", [MemoryRepository, WholeMemoryRepository, BulkMemoryRepository])
@pytest.mark.parametrize("size", [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 300_000])
def test_content_of_any_size_arrives(uri: str, tmp_path: Path, size: int, kind: type[MemoryRepository]) -> None:
    repository = kind(uri)
    repository.log_artifact(local(tmp_path, LARGE[:size]))
    assert content_of(repository) == LARGE[:size]
    assert not repository.bucket.uploads, "an upload in parts was left unfinished"


def test_parts_become_larger_where_there_would_be_too_many(repository: MemoryRepository, tmp_path: Path) -> None:
    repository.backend.max_parts = 3
    content = os.urandom(3 * MEBIBYTE + 1)
    repository.log_artifact(local(tmp_path, content))
    assert content_of(repository) == content
    assert repository.bucket.count("part") <= 3


@given(st.integers(0, 50 * 2**40), st.integers(1, 64 * MEBIBYTE), st.integers(1, 10_000))
def test_the_parts_of_any_size_fit(size: int, preferred: int, most: int) -> None:
    step = part_size_for(size, preferred, most)
    assert step >= preferred
    assert -(-size // step) <= most
    assert step == preferred or step - MEBIBYTE < -(-size // most), "the parts are larger than they have to be"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_error_that_passes_is_mended(repository: MemoryRepository, tmp_path: Path, operation: str) -> None:
    repository.bucket.before = nth(1, operation, Busy())
    repository.log_artifact(local(tmp_path, LARGE))
    assert content_of(repository) == LARGE
    assert not repository.bucket.uploads


@pytest.mark.parametrize("operation", ["put", *OPERATIONS])
def test_a_refusal_is_not_repeated_and_leaves_nothing(
    repository: MemoryRepository, tmp_path: Path, state: Path, operation: str
) -> None:
    repository.bucket.before = always(operation, Denied)
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact(local(tmp_path, LARGE if operation != "put" else b"small"))
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert repository.bucket.count(operation) <= repository.backend.parallel_transfers
    assert not repository.bucket.objects, "a failed upload is visible"
    assert not repository.bucket.uploads, "a failed upload in parts was not aborted"
    assert not list(state.glob("*.json")), "the journal still holds a failed upload"


def test_an_outage_ends_after_bounded_attempts(repository: MemoryRepository, tmp_path: Path) -> None:
    repository.bucket.before = always("put", Busy)
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact(local(tmp_path, b"small"))
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert repository.bucket.count("put") == repository.backend.retry_attempts


@pytest.mark.parametrize("error", [ConnectionResetError, NoSuchUpload])
def test_an_answer_that_was_lost_is_not_taken_for_a_failure(
    repository: MemoryRepository, tmp_path: Path, error: type[Exception]
) -> None:
    """The upload was completed, but the connection broke before the answer; to complete it again is an error.

    An SDK that repeats by itself shows that error alone.
    """
    complete = repository.backend.complete_multipart
    repository.backend.publish("file.bin", bytes(len(LARGE)), None)

    def lose_answer(*args: object) -> StoredObject | None:
        complete(*args)
        raise error

    repository.backend.complete_multipart = lose_answer
    repository.log_artifact(local(tmp_path, LARGE))
    assert content_of(repository) == LARGE


@pytest.mark.parametrize("checksum", ["sha256", None])
def test_an_older_object_of_the_size_is_not_taken_for_a_success(
    repository: MemoryRepository, tmp_path: Path, checksum: str | None
) -> None:
    """The upload is gone because somebody aborted it, and what is there was there before."""
    repository.backend.checksum = checksum
    repository.backend.publish("file.bin", bytes(len(LARGE)), None)

    def vanish(*args: object) -> StoredObject | None:
        repository.bucket.uploads.clear()
        raise NoSuchUpload

    repository.backend.complete_multipart = vanish
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact(local(tmp_path, LARGE))
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_parts_that_arrive_damaged_are_sent_again(repository: MemoryRepository, tmp_path: Path) -> None:
    """A backend may compare each part's checksum by itself."""
    repository.bucket.before = nth(2, "part", CorruptTransferError("damaged"))
    repository.backend.retry_attempts = 1
    repository.log_artifact(local(tmp_path, LARGE))
    assert content_of(repository) == LARGE
    assert not repository.bucket.uploads


@pytest.mark.parametrize(
    ("operation", "kind"), [("put", CorruptTransferError), ("part", CorruptTransferError), ("part", StoredDamagedError)]
)
def test_an_older_object_stays_where_the_store_refused_damaged_content(
    repository: MemoryRepository, tmp_path: Path, operation: str, kind: type[Exception]
) -> None:
    """Nothing was published, so nothing may be withdrawn."""
    repository.backend.publish("file.bin", b"older", None)
    repository.bucket.before = always(operation, lambda: kind("refused: bad digest"))
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact(local(tmp_path, b"small" if operation == "put" else LARGE))
    assert caught.value.error_code == "DATA_LOSS"
    assert content_of(repository) == b"older"
    assert not repository.bucket.uploads


def test_damage_that_a_bulk_upload_notices_does_not_stay(uri: str, tmp_path: Path) -> None:
    repository = BulkMemoryRepository(uri)
    publish = repository.backend.publish

    def damage(path: str, content: bytes, content_type: str | None) -> StoredObject:
        publish(path, b"?" + content, content_type)
        raise StoredDamagedError("the service says so", path)

    repository.backend.publish = damage
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact(local(tmp_path, b"small"))
    assert caught.value.error_code == "DATA_LOSS"
    assert not repository.bucket.objects


def test_an_abort_that_fails_for_a_moment_is_repeated(repository: MemoryRepository, tmp_path: Path) -> None:
    refuse, fail_once = always("part", Denied), nth(1, "abort", Busy())

    def fail(operation: str, path: str) -> None:
        refuse(operation, path)
        fail_once(operation, path)

    repository.bucket.before = fail
    with pytest.raises(MlflowException):
        repository.log_artifact(local(tmp_path, LARGE))
    assert not repository.bucket.uploads


@pytest.mark.parametrize("size", [1000, 300_000])
def test_content_that_arrives_damaged_is_sent_again(repository: MemoryRepository, tmp_path: Path, size: int) -> None:
    publish, left = repository.backend.publish, [True]

    def damage(path: str, content: bytes, content_type: str | None) -> StoredObject:
        return publish(path, damaged(content) if left and left.pop() else content, content_type)

    repository.backend.publish = damage
    repository.log_artifact(local(tmp_path, LARGE[:size]))
    assert content_of(repository) == LARGE[:size]


@pytest.mark.parametrize("size", [1000, 300_000])
def test_content_that_always_arrives_damaged_does_not_stay(
    repository: MemoryRepository, tmp_path: Path, size: int
) -> None:
    publish = repository.backend.publish
    repository.backend.publish = lambda path, content, kind: publish(path, damaged(content), kind)
    with pytest.raises(MlflowException) as caught:
        repository.log_artifact(local(tmp_path, LARGE[:size]))
    assert caught.value.error_code == "DATA_LOSS"
    assert not repository.bucket.objects
    assert not repository.bucket.uploads


def test_the_first_error_ends_the_others(repository: MemoryRepository, tmp_path: Path) -> None:
    """Of a hundred files few are begun when one is refused."""
    for number in range(100):
        local(tmp_path, b"x", f"{number:03}.txt")
    repository.bucket.before = always("put", Denied)
    with pytest.raises(MlflowException, match=r"'\d+\.txt'"):
        repository.log_artifacts(str(tmp_path))
    assert repository.bucket.count("put") <= 3 * repository.backend.parallel_transfers


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_aborts_the_upload(repository: MemoryRepository, tmp_path: Path) -> None:
    """Ctrl-C reaches the caller, who waits for the parts; those that have not begun are not sent."""
    local(tmp_path, os.urandom(64 * 64 * 1024))
    local(tmp_path, b"x", "small.txt")
    interrupted = threading.Event()

    def interrupt(operation: str, path: str) -> None:
        if operation == "part" and not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        elif operation == "part":
            time.sleep(0.01)

    repository.bucket.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        repository.log_artifacts(str(tmp_path))
    assert repository.bucket.count("part") < 64, "parts were begun after the interrupt"
    assert "root/file.bin" not in repository.bucket.objects
    assert not repository.bucket.uploads


def test_bulk_uploads_are_continued_where_they_failed(uri: str, tmp_path: Path) -> None:
    repository = BulkMemoryRepository(uri)
    for number in range(10):
        local(tmp_path, str(number).encode(), f"{number}.txt")
    repository.bucket.before = nth(5, "put", Busy())
    repository.log_artifacts(str(tmp_path))
    assert len(repository.bucket.objects) == 10
    assert [path for operation, path in repository.bucket.calls if operation == "bulk"] == ["10", "6"]


def test_large_files_beside_a_bulk_go_in_parts(uri: str, tmp_path: Path) -> None:
    repository = BulkMemoryRepository(uri)
    local(tmp_path, LARGE, "large.bin")
    local(tmp_path, b"x", "small.txt")
    repository.log_artifacts(str(tmp_path))
    assert repository.bucket.count("bulk") == 1
    assert repository.bucket.count("create") == 1
    assert set(repository.bucket.objects) == {"root/large.bin", "root/small.txt"}


def test_a_backend_downloads_by_its_own_means(uri: str, tmp_path: Path) -> None:
    repository = BulkMemoryRepository(uri)
    repository.backend.publish("large.bin", LARGE, None)
    repository.bucket.before = nth(1, "get", Busy())
    assert Path(repository.download_artifacts("large.bin", str(tmp_path))).read_bytes() == LARGE
    repository.bucket.mangle = damaged
    with pytest.raises(MlflowException):
        repository.download_artifacts("large.bin", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "text/plain"),
        ("a.png", "image/png"),
        ("A.JSON", "application/json"),
        ("MLmodel", None),
        ("a.b.unknown", None),
    ],
)
def test_content_types_are_guessed(
    repository: MemoryRepository, tmp_path: Path, name: str, expected: str | None
) -> None:
    repository.log_artifact(local(tmp_path, b"x", name))
    assert repository.bucket.objects[f"root/{name}"][2] == expected


def test_threads_that_share_a_repository_lose_nothing(repository: MemoryRepository, tmp_path: Path) -> None:
    """Large and small files at once, so that the pool for parts begins and ends again and again."""
    errors: list[BaseException] = []

    def log(worker: int) -> None:
        try:
            for number in range(5):
                folder = tmp_path / f"{worker}-{number}"
                folder.mkdir()
                local(folder, LARGE, "large.bin")
                local(folder, b"x", "small.txt")
                repository.log_artifacts(str(folder), f"{worker}/{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=log, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert len(repository.bucket.objects) == 6 * 5 * 2
    assert not repository.bucket.uploads


def test_idle_repositories_keep_no_threads(repository: MemoryRepository, tmp_path: Path) -> None:
    repository.log_artifact(local(tmp_path, LARGE))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("plugkit-") and not _ends(t)]


def _ends(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()


def test_a_listing_that_repeats_calls_waits_as_the_server_asks(
    repository: MemoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(repository._engine.retries._retrying, "sleep", waits.append)
    repository.bucket.before = nth(1, "list", Busy(7.5))
    repository.list_artifacts()
    assert waits == [7.5]


def test_a_wait_beyond_the_limit_is_not_begun(repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(repository._engine.retries._retrying, "sleep", waits.append)
    repository.bucket.before = always("list", lambda: Busy(50))
    with pytest.raises(MlflowException):
        repository.list_artifacts()
    assert waits == [50, 50], "retry_seconds bounds the waits in all"
