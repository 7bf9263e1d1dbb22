"""A minimal correct artifact repository keeps every rule."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
from folder_artifacts import ENDPOINT, TOKEN, FolderRepository, FullRepository, object_server
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance

_artifact_repository_registry.register("good-folder", FullRepository)
_artifact_repository_registry.register("plain-folder", FolderRepository)


class TestPlainRepository(ArtifactRepositoryConformance):
    """Without mixins: the rules about them are skipped, with the reason."""

    supports_many_files = False

    @pytest.fixture
    def artifact_uri(self, tmp_path):
        return f"plain-folder:{tmp_path}/root"


class TestRepositoryWithEveryMixin(ArtifactRepositoryConformance):
    @pytest.fixture(autouse=True)
    def presigned_urls(self, monkeypatch):
        monkeypatch.setenv(TOKEN, "hunter2-of-the-folder")
        with object_server() as url:
            monkeypatch.setenv(ENDPOINT, url)
            yield

    @pytest.fixture
    def artifact_uri(self, tmp_path):
        return f"good-folder:{tmp_path}/a root"

    @pytest.fixture
    def secrets(self):
        return ("hunter2-of-the-folder",)

    def interrupted_downloads(self, repository):
        return self._changed(repository, lambda chunks: chunks[:1])

    def corrupted_downloads(self, repository):
        return self._changed(repository, lambda chunks: [b"\0" * len(chunks[0]), *chunks[1:]])

    @contextmanager
    def _changed(self, repository, change):
        whole = repository.transfer
        repository.transfer = lambda source: change(list(whole(source)))
        try:
            yield
        finally:
            repository.transfer = whole
