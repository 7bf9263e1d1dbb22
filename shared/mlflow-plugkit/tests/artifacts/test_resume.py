"""Interrupted uploads are resumed, and what nobody resumes is aborted: also where the process was killed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import DELAY_VARIABLE, DiskBackend, DiskRepository
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts import journal
from mlflow_plugkit.artifacts.backend import Source
from mlflow_plugkit.artifacts.journal import STATE_VARIABLE, Entry, Journal, fingerprint

SCRIPT = Path(__file__).with_name("disk.py")
PARTS = 20
CONTENT = os.urandom(PARTS * 64 * 1024)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "large.bin").write_bytes(CONTENT)
    return tmp_path / "large.bin"


def sent(store: Path) -> set[str]:
    return {f.name for f in store.glob("uploads/*/part-*")}


def kill_during_upload(store: Path, file: Path, root: str = "") -> set[str]:
    """Log the file in a process that is killed (SIGKILL) when three parts have arrived."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), f"disk:{store}{root}", str(file)], env=os.environ | {DELAY_VARIABLE: "0.2"}
    )
    try:
        deadline = time.monotonic() + 60
        while len(sent(store / root.strip("/"))) < 3 and time.monotonic() < deadline:
            assert process.poll() is None, "the upload ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    parts = sent(store / root.strip("/"))
    assert 3 <= len(parts) < PARTS
    assert not [f for f in store.rglob("large.bin") if "objects" in f.parts], "a part of an upload is visible"
    return parts


class Counting(DiskRepository):
    """Counts the parts that are sent; the journal takes it for a `DiskRepository`."""

    def make_backend(self, artifact_uri: str) -> DiskBackend:
        backend = super().make_backend(artifact_uri)
        put_part = backend.put_part
        self.parts = []

        def count(path: str, upload_id: str, number: int, source: Source) -> object:
            self.parts.append(number)
            return put_part(path, upload_id, number, source)

        backend.put_part = count
        return backend


Counting.__module__, Counting.__qualname__ = DiskRepository.__module__, DiskRepository.__qualname__


def test_a_killed_upload_is_resumed_with_the_parts_that_arrived(store: Path, file: Path, state: Path) -> None:
    arrived = kill_during_upload(store, file)
    assert len(list(state.glob("*.json"))) == 1
    repository = Counting(f"disk:{store}")
    repository.log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == CONTENT
    assert {f"part-{n}" for n in repository.parts} == {f"part-{n}" for n in range(1, PARTS + 1)} - arrived
    assert not list(store.glob("uploads/*")), "an upload was left unfinished"
    assert not list(state.glob("*.json")), "the journal was not cleaned"


def test_a_killed_upload_that_is_not_resumed_is_aborted_by_the_next_run(
    store: Path, file: Path, tmp_path: Path, state: Path
) -> None:
    """Also where the next run logs below another root, as each MLflow run does."""
    kill_during_upload(store, file, "/0/first-run/artifacts")
    (tmp_path / "small.txt").write_text("x")
    DiskRepository(f"disk:{store}/0/second-run/artifacts").log_artifact(str(tmp_path / "small.txt"))
    assert not list(store.glob("0/first-run/artifacts/uploads/*"))
    assert not list(state.glob("*.json"))


@pytest.fixture
def lost(store: Path, file: Path) -> Iterator[Counting]:
    """A repository whose connection was lost for good after five parts of the file."""
    repository = Counting(f"disk:{store}")
    count = repository.backend.put_part

    def lose(*args: object) -> object:
        if len(repository.parts) >= 5:
            raise ConnectionResetError("lost")
        return count(*args)

    repository.backend.put_part = lose
    with pytest.raises(MlflowException):
        repository.log_artifact(str(file))
    repository.backend.put_part = count
    return repository


def test_a_lost_connection_keeps_the_upload_for_the_next_attempt(lost: Counting, store: Path, file: Path) -> None:
    assert len(list(store.glob("uploads/*"))) == 1
    lost.log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == CONTENT
    assert len(lost.parts) == PARTS, "parts that had arrived were sent again"
    assert not list(store.glob("uploads/*"))


def test_another_upload_of_this_process_leaves_the_kept_one_alone(lost: Counting, store: Path, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("x")
    DiskRepository(f"disk:{store}").log_artifact(str(tmp_path / "small.txt"))
    assert len(list(store.glob("uploads/*"))) == 1


def test_a_file_that_changed_is_sent_anew(lost: Counting, store: Path, file: Path) -> None:
    content = os.urandom(len(CONTENT))
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    before = len(lost.parts)
    lost.log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == content
    assert len(lost.parts) - before == PARTS


def test_an_upload_that_the_store_dropped_is_sent_anew(lost: Counting, store: Path, file: Path) -> None:
    for upload in store.glob("uploads/*"):
        lost.backend.abort_multipart("large.bin", upload.name)
    lost.log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == CONTENT


def test_parts_of_another_size_are_sent_again(lost: Counting, store: Path, file: Path) -> None:
    part = next(store.glob("uploads/*/part-*"))
    part.write_bytes(b"short")
    lost.log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == CONTENT


def test_an_upload_that_lives_is_never_touched(store: Path, file: Path, tmp_path: Path) -> None:
    """Another process uploads; this one logs the same file and others meanwhile."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), f"disk:{store}", str(file)], env=os.environ | {DELAY_VARIABLE: "0.3"}
    )
    try:
        deadline = time.monotonic() + 60
        while not sent(store) and time.monotonic() < deadline:
            time.sleep(0.01)
        (theirs,) = store.glob("uploads/*")
        repository = Counting(f"disk:{store}")
        repository.log_artifact(str(file))
        assert len(repository.parts) == PARTS, "an upload was taken from a process that lives"
        assert theirs.is_dir(), "an upload of a process that lives was aborted"
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(10)
    assert (store / "objects/large.bin").read_bytes() == CONTENT


def test_an_upload_whose_id_was_never_noted_is_found(store: Path, state: Path) -> None:
    """The process was killed between the creation of the upload and the note of its id."""
    repository = DiskRepository(f"disk:{store}")
    repository.backend.create_multipart("large.bin", None, None)
    repository.backend.create_multipart("other.bin", None, None)
    _leave_behind(repository, "")
    repository.log_artifact(__file__)
    assert [p.path for p in repository.backend.list_multiparts()] == ["other.bin"]
    assert not list(state.glob("*.json"))


def test_an_upload_whose_creation_was_not_answered_is_found_by_the_next_run(
    store: Path, file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt made another one, which was completed."""
    repository = DiskRepository(f"disk:{store}")
    create, answers = repository.backend.create_multipart, iter([False, True])

    def lose_first(*args: object) -> str:
        upload_id = create(*args)
        if not next(answers, True):
            raise ConnectionResetError
        return upload_id

    repository.backend.create_multipart = lose_first
    repository.log_artifact(str(file))
    assert len(list(repository.backend.list_multiparts())) == 1
    monkeypatch.setattr(Entry, "is_left_behind", lambda self: True)  # the process has ended
    DiskRepository(f"disk:{store}").log_artifact(__file__)
    assert not list(repository.backend.list_multiparts())
    assert not list(state.glob("*.json"))


def _leave_behind(repository: DiskRepository, upload_id: str, **changes: object) -> Entry:
    """An entry of a process that is gone."""
    notes = repository._engine.journal
    entry = notes.begin(repository.backend.root, "large.bin", 64 * 1024, "")
    owner = (entry.owner[0], entry.owner[1], entry.owner[2] - 1000)
    return notes.note(entry, **{"upload_id": upload_id, "owner": owner} | changes)


def test_a_clean_up_that_fails_is_tried_again_by_the_next_run(store: Path, state: Path, monkeypatch) -> None:
    repository = DiskRepository(f"disk:{store}")
    _leave_behind(repository, repository.backend.create_multipart("large.bin", None, None))
    with monkeypatch.context() as patch:
        patch.setattr(DiskBackend, "abort_multipart", lambda *args: 1 / 0)
        repository.log_artifact(__file__)
    assert len(list(state.glob("*.json"))) == 1, "an upload that could not be aborted was forgotten"


def test_a_clean_up_that_fails_again_is_left_alone_for_longer_each_time(
    store: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each first upload of a process would wait for a service that was switched off long ago."""
    repository = DiskRepository(f"disk:{store}")
    _leave_behind(repository, "abc")
    tries = []
    monkeypatch.setattr(DiskBackend, "abort_multipart", lambda self, path, upload_id: tries.append(1) or 1 / 0)
    monkeypatch.setattr(Entry, "is_left_behind", lambda self: True)  # each of its processes has ended
    begun = time.time()
    for later, tried in ((0, 1), (0, 2), (0, 2), (119, 2), (121, 3), (240, 3), (362, 4)):
        monkeypatch.setattr(journal.time, "time", lambda later=later: begun + later)
        DiskRepository(f"disk:{store}").log_artifact(__file__)
        assert len(tries) == tried, later


def test_uploads_of_other_machines_are_left_alone_for_a_week(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Home folders are shared; whether a process of another machine lives cannot be seen."""
    repository = DiskRepository(f"disk:{store}")
    entry = _leave_behind(repository, "abc", owner=("elsewhere.example", 1, 1.0))
    assert not entry.is_left_behind()
    monkeypatch.setattr(journal.time, "time", lambda: entry.started + journal.STRANGERS_AGE + 1)
    assert entry.is_left_behind()


def test_two_processes_cannot_take_one_entry(store: Path) -> None:
    repository = DiskRepository(f"disk:{store}")
    _leave_behind(repository, "abc", source="same")
    notes = repository._engine.journal
    stale = list(notes._entries(""))
    assert notes.resumable(repository.backend.root, "large.bin", "same") is not None
    assert notes._take(stale[0]) is None


def test_a_state_folder_that_cannot_be_written_does_no_harm(
    store: Path, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(STATE_VARIABLE, "/dev/null/not-a-folder")
    caplog.set_level("DEBUG", "mlflow_plugkit")
    DiskRepository(f"disk:{store}").log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == CONTENT
    assert [r.levelname for r in caplog.records if "journal" in r.message] == ["DEBUG"]


def test_entries_are_private_and_hold_no_secret(store: Path, state: Path) -> None:
    notes = Journal("kind", "disk://user:pass-9Zq@host/x?token=tok-9Zq")
    entry = notes.begin("disk:/x", "large.bin", 1, "")
    assert entry.file is not None
    assert stat.S_IMODE(entry.file.stat().st_mode) == 0o600
    assert "9Zq" not in entry.file.read_text()
    assert json.loads(entry.file.read_text())["location"] == ""


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"owner": 1}', "\ud800"])
def test_a_damaged_entry_is_passed_over(store: Path, state: Path, file: Path, content: str) -> None:
    state.mkdir(parents=True)
    (state / "broken.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    DiskRepository(f"disk:{store}").log_artifact(str(file))
    assert (store / "objects/large.bin").read_bytes() == CONTENT


def test_a_fingerprint_tells_files_apart(file: Path) -> None:
    first = fingerprint(Source(file=file))
    assert first == fingerprint(Source(file=file))
    assert first != fingerprint(Source(file=file).slice(1, 5))
    os.utime(file, ns=(5, 5))
    assert first != fingerprint(Source(file=file))
    assert fingerprint(Source(data=b"x")) == ""
