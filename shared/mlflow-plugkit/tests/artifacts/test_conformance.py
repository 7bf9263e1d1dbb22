"""The engine keeps every rule of the conformance kit for artifact repositories, on a store in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from memory import BUCKETS, MemoryRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

conformance = pytest.importorskip("mlflow_plugkit_testing.artifacts", reason="the conformance kit is not installed")


class TestMemory(conformance.ArtifactRepositoryConformance):
    page_size = 20
    large_file_size = 300_000
    multipart_part_size = 64 * 1024

    @pytest.fixture
    def artifact_uri(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        name = f"kit-{uuid.uuid4().hex}"
        monkeypatch.setitem(_artifact_repository_registry._registry, "memory", MemoryRepository)
        yield f"memory://{name}/root"
        BUCKETS.pop(name, None)
