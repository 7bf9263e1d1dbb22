"""SIGKILL in the middle of an upload: nothing half-written is readable, and the next run cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from oss_emulator import Emulator
from oss_emulator.server import Answer, Request

pytestmark = pytest.mark.once

URI = "oss://artifacts/killed?part_size=102400&multipart_threshold=204800"
UPLOAD = """
import sys
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
get_artifact_repository(sys.argv[1]).log_artifact(sys.argv[2])
"""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MLFLOW_PLUGKIT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def kill_during_upload(emulator: Emulator, file: Path) -> None:
    """Run an upload in a process and kill it when its third part arrives."""
    reached, gone = threading.Event(), threading.Event()

    def wait(request: Request) -> Answer | None:
        if request.operation == "UploadPart" and emulator.counts["UploadPart"] >= 3:
            reached.set()
            gone.wait(60)
        return None

    emulator.intercept = wait
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, URI, str(file)], env=dict(os.environ))
    try:
        assert reached.wait(90), "the upload never sent its third part"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        gone.set()
        emulator.intercept = None


def left(emulator: Emulator) -> int:
    """The unfinished uploads, when the requests of the killed process have been worked off."""
    deadline = time.monotonic() + 10
    while emulator.buckets["artifacts"].uploads and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(emulator.buckets["artifacts"].uploads)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
def test_a_killed_upload_is_not_readable_and_is_aborted_by_the_next_run(
    oss_env: Mapping[str, str], emulator: Emulator, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(1_000_000))
    kill_during_upload(emulator, tmp_path / "large.bin")
    repository = get_artifact_repository(URI)
    assert repository.list_artifacts() == []
    assert len(emulator.buckets["artifacts"].uploads) == 1
    (tmp_path / "other.txt").write_text("other")
    repository.log_artifact(str(tmp_path / "other.txt"))
    assert [info.path for info in repository.list_artifacts()] == ["other.txt"]
    assert left(emulator) == 0, "the next run's clean-up must abort what the killed process began"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
@pytest.mark.parametrize("sdk", ["oss2"])
def test_a_killed_upload_is_resumed_by_the_same_upload(
    oss_env: Mapping[str, str], emulator: Emulator, state: Path, tmp_path: Path
) -> None:
    content = os.urandom(1_000_000)
    (tmp_path / "large.bin").write_bytes(content)
    kill_during_upload(emulator, tmp_path / "large.bin")
    arrived = sum(len(u.parts) for u in emulator.buckets["artifacts"].uploads.values())
    emulator.counts.clear()
    get_artifact_repository(URI).log_artifact(str(tmp_path / "large.bin"))
    assert emulator.buckets["artifacts"].objects["killed/large.bin"].data == content
    assert emulator.counts["InitiateMultipartUpload"] == 0
    assert 0 < emulator.counts["UploadPart"] <= 10 - min(arrived, 2)
    assert left(emulator) == 0
