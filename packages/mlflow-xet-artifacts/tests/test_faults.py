"""The connection to the Hub breaks in every way, in every operation.

Content that the Hub keeps in git travels over this connection; that in the Xet storage does not, since hf_xet's
local storage has no connection to break. So the large file is one that the Hub keeps in git.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_plugkit_testing.artifacts_base import read_tree, write_tree
from mlflow_plugkit_testing.artifacts_faults import ArtifactFaultConformance
from mlflow_plugkit_testing.faults import Fault, FaultProxy

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    """huggingface_hub waits up to 23 seconds between its own attempts, the engine as long again."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setenv("MLFLOW_XET_ATTEMPTS", "3")
    monkeypatch.setattr(hub, "large_suffixes", ())


class TestRepository(ArtifactFaultConformance):
    large_file_size = 900_000

    @pytest.fixture
    def upstream(self, hub: FakeHub) -> tuple[str, int]:
        return "127.0.0.1", hub.port

    @pytest.fixture
    def artifact_uri(self, repo_id: str) -> str:
        return f"xet://{repo_id}/main/run"

    @pytest.fixture
    def faulty(self, artifact_uri: str, proxy: FaultProxy, direct: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The endpoint is no part of the URI; `direct` has read it already."""
        return through(proxy, artifact_uri, monkeypatch)


class TestBucket:
    """A bucket's content is all in the Xet storage, so that only requests without content can be broken."""

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("drop"),
            Fault("status", status=500),
            Fault("status", status=503, retry_after=1),
            Fault("status", status=429, retry_after=1),
            Fault("delay", seconds=0.3),
            Fault("lost-answer"),
            Fault("cut-response", least_body=64),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("nth", range(3))
    @pytest.mark.parametrize("operation", ["upload", "list", "download", "delete"])
    def test_a_passing_fault_is_mended(
        self,
        hub: FakeHub,
        bucket_id: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        operation: str,
        nth: int,
        fault: Fault,
    ) -> None:
        """It strikes the first request of an operation, the second or the third."""
        uri = f"xet://buckets/{bucket_id}/run"
        direct = get_artifact_repository(uri)
        files = write_tree(tmp_path / "in", {f"a/{n}.bin": bytes([n]) * 5000 for n in range(5)})
        if operation != "upload":
            direct.log_artifacts(str(files))
        with FaultProxy("127.0.0.1", hub.port) as proxy:
            faulty = through(proxy, uri, monkeypatch)
            calls = {
                "upload": lambda: faulty.log_artifacts(str(files)),
                "list": lambda: [i.path for i in faulty.list_artifacts("a")],
                "download": lambda: faulty.download_artifacts("a", str(tmp_path)),
                "delete": lambda: faulty.delete_artifacts("a"),
            }
            with proxy.inject(fault) as injected:
                injected.strikes = after(nth, injected.strikes)
                answer = calls[operation]()
        left = {i.path for i in direct.list_artifacts("a")}
        assert left == (set() if operation == "delete" else {f"a/{n}.bin" for n in range(5)})
        assert operation != "list" or set(answer) == left
        assert operation != "download" or read_tree(tmp_path / "a") == read_tree(files / "a")

    @pytest.mark.parametrize("fault", [Fault("drop", times=None), Fault("status", status=503, times=None)], ids=str)
    @pytest.mark.parametrize("operation", ["upload", "list", "download", "delete"])
    def test_a_lasting_fault_is_an_error(
        self,
        hub: FakeHub,
        bucket_id: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        operation: str,
        fault: Fault,
    ) -> None:
        uri = f"xet://buckets/{bucket_id}/run"
        files = write_tree(tmp_path / "in", {f"a/{n}.bin": bytes([n]) * 5000 for n in range(5)})
        get_artifact_repository(uri).log_artifacts(str(files), "old")
        with FaultProxy("127.0.0.1", hub.port) as proxy, proxy.inject(fault):
            faulty = through(proxy, uri, monkeypatch)
            calls = {
                "upload": lambda: faulty.log_artifacts(str(files)),
                "list": lambda: faulty.list_artifacts("old/a"),
                "download": lambda: faulty.download_artifacts("old/a/1.bin", str(tmp_path)),
                "delete": lambda: faulty.delete_artifacts("old"),
            }
            with pytest.raises(MlflowException):
                calls[operation]()
        assert [i.path for i in get_artifact_repository(uri).list_artifacts()] == ["old"]
        assert not (tmp_path / "old").exists() or not read_tree(tmp_path / "old")


def through(proxy: FaultProxy, uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The repository at this URI, reached through the proxy."""
    with monkeypatch.context() as environment:
        environment.setenv("HF_ENDPOINT", f"http://{proxy.address}")
        return get_artifact_repository(uri)


def after(passed: int, strikes: Callable[[str], bool]) -> Callable[[str], bool]:
    """As `strikes`, having let some requests pass."""
    left = [passed]

    def later(method: str) -> bool:
        left[0] -= 1
        return left[0] < 0 and strikes(method)

    return later
