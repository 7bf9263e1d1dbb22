"""A process that is killed during an upload leaves nothing that can be read, and the next run cleans up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_plugkit_testing.faults import Fault, FaultProxy
from mlflow_plugkit_testing.server import plugin_env

pytestmark = pytest.mark.once

UPLOAD = """
import sys
from mlflow_s3_artifacts.plugin import artifact_repository
artifact_repository(sys.argv[1]).log_artifact(sys.argv[2], "models")
"""


@pytest.fixture
def environment(weed: Any, data_plane: str, tmp_path: Path) -> dict[str, str]:
    options = {"MULTIPART_THRESHOLD": "5", "PART_SIZE": "5", "DATA_PLANE": data_plane, "PARALLEL": "2"}
    own = {f"MLFLOW_S3_ARTIFACTS_{name}": value for name, value in options.items()}
    return plugin_env(env=weed.environment | own | {"MLFLOW_PLUGKIT_STATE_DIR": str(tmp_path / "state")})


@pytest.fixture
def slow(weed: Any) -> Iterator[FaultProxy]:
    """A way to the server on which parts take a minute, and everything else passes at once."""
    delay = Fault("delay", seconds=60, times=None, methods=("PUT",), least_body=0)
    with FaultProxy("127.0.0.1", weed.port) as proxy, proxy.inject(delay):
        yield proxy


def test_a_killed_upload_leaves_nothing_behind(
    weed: Any, slow: FaultProxy, environment: dict[str, str], fresh_uri: Callable[[], str], tmp_path: Path
) -> None:
    uri = fresh_uri()
    prefix = uri.rpartition("/")[2]
    large, small = tmp_path / "large.bin", tmp_path / "small.txt"
    large.write_bytes(os.urandom(12 * 1024 * 1024))
    small.write_text("x")
    s3 = weed.client()

    def unfinished() -> list[str]:
        found = s3.list_multipart_uploads(Bucket="plugkit", Prefix=prefix).get("Uploads", [])
        return [upload["Key"] for upload in found]

    command = [sys.executable, "-c", UPLOAD]
    far = uri.replace(f":{weed.port}/", f":{slow.port}/")
    killed = subprocess.Popen([*command, far, str(large)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not unfinished() and time.monotonic() < deadline:
            assert killed.poll() is None, "the upload ended before it could be killed"
            time.sleep(0.1)
        assert unfinished() == [f"{prefix}/models/large.bin"]
    finally:
        killed.kill()
        killed.wait(20)
    assert s3.list_objects_v2(Bucket="plugkit", Prefix=prefix).get("KeyCount", 0) == 0

    run = subprocess.run(
        [*command, uri, str(small)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert unfinished() == []
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="plugkit", Prefix=prefix)["Contents"]] == [
        f"{prefix}/models/small.txt"
    ]
