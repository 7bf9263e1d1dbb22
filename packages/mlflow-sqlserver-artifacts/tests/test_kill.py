"""SIGKILL in the middle of an upload: nothing can be read of it, and the next run removes what it left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlflow_sqlserver_artifacts import cleaning
from mlflow_sqlserver_artifacts.database import Database
from mlflow_sqlserver_artifacts.repository import SqlArtifactRepository
from mlflow_sqlserver_artifacts.schema import settings_tables
from mlflow_sqlserver_artifacts.settings import PREFIX, read_settings

pytestmark = pytest.mark.once

SECONDS = 60

STREAM = """
import sys
from mlflow_sqlserver_artifacts.repository import SqlArtifactRepository

class Slow:
    count = 0
    def read(self, size=-1):
        self.count += 1
        if self.count > 400:
            print("under way", flush=True)
            sys.stdin.read()
        return b"x" * 65536

SqlArtifactRepository(sys.argv[1]).log_artifact_from_stream(Slow(), "big.bin")
"""

PARTS = """
import sys
from mlflow_plugkit.artifacts.backend import Source
from mlflow_sqlserver_artifacts.backend import SqlBackend
from mlflow_sqlserver_artifacts.repository import SqlArtifactRepository

real, count = SqlBackend.put_part, []
def put_part(self, path, upload_id, number, source):
    part = real(self, path, upload_id, number, source)
    count.append(part)
    if len(count) == 2:
        print("under way", flush=True)
    if len(count) >= 2:
        sys.stdin.read()
    return part
SqlBackend.put_part = put_part
SqlArtifactRepository(sys.argv[1]).log_artifact(sys.argv[2])
"""


def counts(uri: str) -> tuple[int, int]:
    """Rows of chunks and of uploads."""
    settings = read_settings(uri)
    made = settings_tables(settings)
    with Database(settings).read() as connection:
        chunks, uploads = (
            connection.scalar(sa.select(sa.func.count()).select_from(t)) for t in (made.chunks, made.uploads)
        )
    return int(chunks or 0), int(uploads or 0)


def kill_during(script: str, *arguments: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "under way\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)


def test_a_killed_stream_leaves_nothing_after_the_next_run(
    artifact_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next upload of any process removes an upload without progress."""
    monkeypatch.setenv(f"{PREFIX}_STALE_AFTER", "1")
    kill_during(STREAM, artifact_uri)
    assert SqlArtifactRepository(artifact_uri).list_artifacts() == []
    assert counts(artifact_uri)[0] > 0, "the process was killed before it had stored anything"
    (tmp_path / "small.txt").write_text("x")
    deadline = time.monotonic() + SECONDS
    while counts(artifact_uri) != (1, 1):
        assert time.monotonic() < deadline, f"chunks and uploads are left: {counts(artifact_uri)}"
        monkeypatch.setattr(cleaning, "_cleaned", set())  # as in another process
        SqlArtifactRepository(artifact_uri).log_artifact(str(tmp_path / "small.txt"))
    assert [info.path for info in SqlArtifactRepository(artifact_uri).list_artifacts()] == ["small.txt"]


def test_a_killed_upload_in_parts_goes_on_where_it_was(
    artifact_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is listed after the kill; the same upload again is complete, and no other one is left."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "big.bin"
    file.write_bytes(b"0123456789abcdef" * (48 * 65536))
    kill_during(PARTS, artifact_uri, str(file))
    repository = SqlArtifactRepository(artifact_uri)
    assert repository.list_artifacts() == []
    assert counts(artifact_uri)[0] >= 32
    repository.log_artifact(str(file))
    assert [info.file_size for info in repository.list_artifacts()] == [file.stat().st_size]
    assert counts(artifact_uri) == (48, 1), "the killed process's upload is left"
    (tmp_path / "target").mkdir()
    assert Path(repository.download_artifacts("big.bin", str(tmp_path / "target"))).read_bytes() == file.read_bytes()


def test_a_killed_upload_in_parts_that_nobody_resumes_is_removed(
    artifact_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another upload from the same machine aborts what a process that is gone had begun."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "big.bin").write_bytes(b"0123456789abcdef" * (48 * 65536))
    kill_during(PARTS, artifact_uri, str(tmp_path / "big.bin"))
    (tmp_path / "big.bin").unlink()
    (tmp_path / "small.txt").write_text("x")
    SqlArtifactRepository(artifact_uri).log_artifact(str(tmp_path / "small.txt"))
    assert counts(artifact_uri) == (1, 1), "the killed process's upload is left"
