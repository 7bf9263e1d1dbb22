"""Several processes on one branch, and a process that is killed: nothing is lost, nothing is half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_hub import FakeHub
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_plugkit_testing.server import plugin_env

WRITER = """
import sys
from pathlib import Path
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
uri, folder, name, count = sys.argv[1:]
artifacts = get_artifact_repository(uri)
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(count)):
    file = Path(folder, f"{name}-{n}.txt")
    file.write_text(name)
    artifacts.log_artifact(str(file), "shared")
"""
UPLOADER = """
import sys
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
artifacts = get_artifact_repository(sys.argv[1])
artifacts.log_artifacts(sys.argv[2], "model")
"""


def test_two_processes_on_one_branch_lose_nothing(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    """Each writes ten files, one commit each, at the same time."""
    uri, each = f"xet://{repo_id}/main", 10
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, uri, str(tmp_path), name, str(each)],
            env=plugin_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    try:
        for writer in writers:
            assert writer.stdout
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [writer.wait(120) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    names = {info.path for info in get_artifact_repository(uri).list_artifacts("shared")}
    assert names == {f"shared/{name}-{n}.txt" for name in ("first", "second") for n in range(each)}
    assert len(hub.state.repository("model", repo_id).history("main")) == 1 + 2 * each


@pytest.mark.parametrize("kind", ["repository", "bucket"])
def test_a_killed_upload_leaves_nothing_that_can_be_read(own_hub: FakeHub, tmp_path: Path, kind: str) -> None:
    """SIGKILL while content is on its way to the Xet storage; the next run stores all of it."""
    uri = "xet://me/models/main" if kind == "repository" else "xet://buckets/me/bucket"
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(4):
        (tree / f"part-{n}.bin").write_bytes(os.urandom(24 * 1024 * 1024))
    before = own_hub.shards.stored_bytes()
    uploader = subprocess.Popen([sys.executable, "-c", UPLOADER, uri, str(tree)], env=plugin_env())
    try:
        deadline = time.monotonic() + 60
        while own_hub.shards.stored_bytes() == before and time.monotonic() < deadline and uploader.poll() is None:
            time.sleep(0.01)
        assert uploader.poll() is None, "the upload ended before it could be killed"
        uploader.send_signal(signal.SIGKILL)
        assert uploader.wait(60) == -signal.SIGKILL
    finally:
        uploader.kill()
        uploader.wait()
    artifacts = get_artifact_repository(uri)
    assert artifacts.list_artifacts() == []
    assert len(own_hub.state.repository("model", "me/models").history("main")) == 1
    artifacts.log_artifacts(str(tree), "model")
    assert {i.path: i.file_size for i in artifacts.list_artifacts("model")} == {
        f"model/part-{n}.bin": 24 * 1024 * 1024 for n in range(4)
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_use_the_repository(hub: FakeHub, bucket_id: str, tmp_path: Path) -> None:
    """A data loader's workers inherit a repository that was in use."""
    artifacts = get_artifact_repository(f"xet://buckets/{bucket_id}")
    (tmp_path / "a.bin").write_bytes(b"a" * 100_000)
    artifacts.log_artifact(str(tmp_path / "a.bin"))
    (tmp_path / "parent").mkdir()
    (tmp_path / "child").mkdir()
    artifacts.download_artifacts("a.bin", str(tmp_path / "parent"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            artifacts.download_artifacts("a.bin", str(tmp_path / "child"))
            artifacts.log_artifact(str(tmp_path / "a.bin"), "child")
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    ended = (0, 0)
    while ended[0] == 0 and time.monotonic() < deadline:
        ended = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    assert (tmp_path / "child" / "a.bin").read_bytes() == b"a" * 100_000
    assert {i.path for i in artifacts.list_artifacts()} == {"a.bin", "child"}
