"""The plugin keeps every rule of the conformance kit, with each SDK."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest
from conftest import KEY_ID, KEY_SECRET, environment, reset
from oss_emulator import Emulator
from oss_emulator.server import Answer

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.server import plugin_env
from mlflow_plugkit_testing.wheels import PackagingConformance


class OnEmulator:
    """A fresh root on the emulator, and downloads that break."""

    sdk = "oss2"
    multipart_part_size = 100 * 1024

    @pytest.fixture
    def artifact_uri(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
        for name, value in environment(emulator, MLFLOW_OSS_SDK=self.sdk).items():
            monkeypatch.setenv(name, value)
        self.emulator = emulator
        return f"oss://artifacts/{uuid.uuid4().hex[:8]}?part_size=1048576&multipart_threshold=2097152"

    @pytest.fixture
    def secrets(self) -> tuple[str, ...]:
        return (KEY_ID, KEY_SECRET)

    @contextmanager
    def interrupted_downloads(self, repository: object) -> Iterator[None]:
        with self.emulator.damaged_downloads(lambda answer: replace(answer, sent=len(answer.body) // 2)):
            yield

    @contextmanager
    def corrupted_downloads(self, repository: object) -> Iterator[None]:
        def flipped(answer: Answer) -> Answer:
            middle = len(answer.body) // 2
            changed = bytes([answer.body[middle] ^ 1])
            return replace(answer, body=answer.body[:middle] + changed + answer.body[middle + 1 :])

        with self.emulator.damaged_downloads(flipped):
            yield


class TestOss2(OnEmulator, ArtifactRepositoryConformance): ...


class TestV2(OnEmulator, ArtifactRepositoryConformance):
    sdk = "v2"


class TestProxied(ProxiedArtifactsConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def upstream_oss(cls) -> Iterator[Emulator]:
        with Emulator() as emulator:
            yield reset(emulator)

    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls, upstream_oss: Emulator) -> str:
        return "oss://artifacts/served"

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, upstream_oss: Emulator) -> Mapping[str, str]:
        return plugin_env(env=environment(upstream_oss))

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls) -> tuple[str, ...]:
        return (KEY_ID, KEY_SECRET)


class TestPackaging(PackagingConformance):
    distribution = "mlflow-oss-artifacts"
