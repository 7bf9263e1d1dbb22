"""The repository keeps every rule of the conformance kit, on both data planes, directly and behind a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.server import plugin_env
from mlflow_plugkit_testing.wheels import PackagingConformance


@pytest.mark.usefixtures("aws_environment", "data_plane")
class TestArtifactRepository(ArtifactRepositoryConformance):
    @pytest.fixture
    def artifact_uri(self, fresh_uri: Callable[[], str]) -> str:
        return fresh_uri()

    @pytest.fixture
    def secrets(self, weed: Any) -> tuple[str, ...]:
        return (weed.secret_key,)


class TestProxiedArtifacts(ProxiedArtifactsConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls, fresh_uri: Callable[[], str]) -> str:
        return fresh_uri()

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls, weed: Any) -> tuple[str, ...]:
        return (weed.secret_key,)

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, weed: Any) -> Mapping[str, str]:
        return plugin_env(env=weed.environment)


class TestPackaging(PackagingConformance):
    distribution = "mlflow-s3-artifacts"
