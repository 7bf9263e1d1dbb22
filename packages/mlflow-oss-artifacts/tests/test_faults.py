"""Every operation under every fault of the network, with each SDK."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from conftest import environment
from oss_emulator import Emulator

from mlflow_oss_artifacts.backend import OssBackend
from mlflow_plugkit_testing.artifacts_faults import ArtifactFaultConformance
from mlflow_plugkit_testing.faults import FaultProxy

pytestmark = pytest.mark.once

QUERY = "part_size=1048576&multipart_threshold=2097152"


class OnFaultyNetwork:
    """The emulator behind the proxy, and a plugin that gives up after a second or two."""

    sdk = "oss2"

    @pytest.fixture(autouse=True)
    def impatience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(OssBackend, "retry_wait", 0.05)
        monkeypatch.setattr(OssBackend, "retry_attempts", 2)

    @pytest.fixture
    def upstream(self, emulator: Emulator) -> tuple[str, int]:
        return emulator.address

    @pytest.fixture
    def artifact_uri(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
        for name, value in environment(emulator, MLFLOW_OSS_SDK=self.sdk).items():
            monkeypatch.setenv(name, value)
        return f"oss://artifacts/{uuid.uuid4().hex[:8]}?{QUERY}"

    @pytest.fixture
    def faulty(self, direct: Any, artifact_uri: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", f"http://{proxy.address}")
        return self.make_repository(artifact_uri)  # type: ignore[attr-defined] # of the conformance class


class TestOss2Faults(OnFaultyNetwork, ArtifactFaultConformance): ...


class TestV2Faults(OnFaultyNetwork, ArtifactFaultConformance):
    sdk = "v2"
