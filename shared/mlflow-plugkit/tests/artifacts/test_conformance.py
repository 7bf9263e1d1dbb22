"""The engine keeps every rule of the conformance kit for artifact repositories, on a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from memory import BulkMemoryRepository, MemoryRepository, always
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance


class TestMemory(ArtifactRepositoryConformance):
    page_size = 20
    large_file_size = 300_000
    multipart_part_size = 64 * 1024
    kind: type[MemoryRepository] = MemoryRepository

    @pytest.fixture
    def artifact_uri(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setitem(_artifact_repository_registry._registry, "memory", self.kind)
        return uri

    @contextmanager
    def interrupted_downloads(self, repository: MemoryRepository) -> Iterator[None]:
        repository.bucket.before = always("chunk", ConnectionResetError)
        yield
        repository.bucket.before = lambda operation, path: None

    @contextmanager
    def corrupted_downloads(self, repository: MemoryRepository) -> Iterator[None]:
        repository.bucket.mangle = lambda chunk: chunk[:-1] + bytes([chunk[-1] ^ 1])
        yield
        repository.bucket.mangle = lambda chunk: chunk


class TestBulk(TestMemory):
    kind = BulkMemoryRepository
