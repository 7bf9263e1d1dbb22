"""The plugin keeps every rule of the conformance kit: in a repository and a bucket, directly and through a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import pytest
from fake_hub import FakeHub
from fake_hub.server import TOKEN

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.server import plugin_env
from mlflow_plugkit_testing.wheels import PackagingConformance


class _OnTheHub(ArtifactRepositoryConformance):
    """Content that is damaged or cut in the Xet storage itself."""

    @pytest.fixture(autouse=True)
    def storage(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = hub
        monkeypatch.setenv("MLFLOW_XET_ATTEMPTS", "2")

    def corrupted_downloads(self, repository: object) -> AbstractContextManager[None]:
        def change_bytes(content: bytes) -> bytes:
            changed = bytearray(content)
            changed[5000::20_000] = bytes(byte ^ 0x55 for byte in changed[5000::20_000])
            return bytes(changed)

        return self.hub.damaged_storage(change_bytes)

    def interrupted_downloads(self, repository: object) -> AbstractContextManager[None]:
        return self.hub.damaged_storage(lambda content: content[: len(content) // 2])


class TestRepository(_OnTheHub):
    @pytest.fixture
    def artifact_uri(self, repo_id: str) -> str:
        return f"xet://{repo_id}/main/experiments/1"

    @pytest.fixture
    def secrets(self) -> tuple[str, ...]:
        return (TOKEN,)


class TestRootOfADatasetsBranch(ArtifactRepositoryConformance):
    """The root of a branch whose name has a slash, made by the first upload."""

    large_file_size = 300_000
    page_size = 300

    @pytest.fixture(autouse=True)
    def small_pages(self, hub: FakeHub) -> None:
        hub.page_size = 300

    @pytest.fixture
    def artifact_uri(self, new_repository: object) -> str:
        return f"xet://{new_repository('dataset')}/run%2Fone?repo_type=dataset&create=true"


class TestBucket(_OnTheHub):
    @pytest.fixture
    def artifact_uri(self, bucket_id: str) -> str:
        return f"xet://buckets/{bucket_id}/experiments"

    @pytest.fixture
    def secrets(self) -> tuple[str, ...]:
        return (TOKEN,)


class _Proxied(ProxiedArtifactsConformance):
    """The server has a Hub of its own: hf_xet's local storage is for one process at a time."""

    @pytest.fixture(scope="class")
    @classmethod
    def servers_hub(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
        with FakeHub(tmp_path_factory.mktemp("servers-hub")) as hub:
            hub.state.create("model", "me/models")
            hub.state.buckets["me/bucket"] = {}
            yield hub

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls) -> tuple[str, ...]:
        return (TOKEN,)

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, servers_hub: FakeHub) -> Mapping[str, str]:
        home = str(servers_hub.folder / "home")
        return plugin_env(env={"HF_ENDPOINT": servers_hub.url, "HF_TOKEN": TOKEN, "HF_HOME": home})


class TestProxiedRepository(_Proxied):
    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls) -> str:
        return "xet://me/models/main"


class TestProxiedBucket(_Proxied):
    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls) -> str:
        return "xet://buckets/me/bucket/mlflow"


class TestPackaging(PackagingConformance):
    distribution = "mlflow-xet-artifacts"
