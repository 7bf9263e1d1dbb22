"""Faults on the way to SeaweedFS: nothing is lost or half-published, on either data plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlflow_plugkit_testing.artifacts_faults import ArtifactFaultConformance
from mlflow_s3_artifacts.backend import S3Backend

pytestmark = pytest.mark.once


@pytest.mark.usefixtures("aws_environment", "data_plane", "impatient")
class TestFaults(ArtifactFaultConformance):
    @pytest.fixture
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_RETRIES", "3")
        monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_PART_SIZE", "5")
        monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_MULTIPART_THRESHOLD", "5")
        monkeypatch.setattr(S3Backend, "retry_wait", 0.05)

    @pytest.fixture
    def upstream(self, weed: Any) -> tuple[str, int]:
        return "127.0.0.1", weed.port

    @pytest.fixture
    def artifact_uri(self, fresh_uri: Callable[[], str]) -> str:
        return fresh_uri()

    @pytest.fixture
    def faulty_uri(self, artifact_uri: str, upstream: tuple[str, int], proxy: Any) -> str:
        return artifact_uri.replace(f":{upstream[1]}/", f":{proxy.port}/")
