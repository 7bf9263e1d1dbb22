"""A download's files go where MLflow sends them, and nowhere else, though MLflow is asked once for a folder."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from memory import MemoryRepository
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

FILES = {"a.txt": b"a", "b.txt": b"b", "sub/c.txt": b"c", "sub/deep/d.txt": b"d", "sub/deep/e.txt": b"e"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that MLflow's own method was asked for."""
    paths: list[str] = []
    own = ArtifactRepository._create_download_destination

    def counted(self: ArtifactRepository, src_artifact_path: str, dst_local_dir_path: str | None = None) -> str:
        paths.append(src_artifact_path)
        return str(own(self, src_artifact_path, dst_local_dir_path))

    monkeypatch.setattr(ArtifactRepository, "_create_download_destination", counted)
    return paths


@pytest.fixture
def filled(repository: MemoryRepository) -> MemoryRepository:
    """A repository with files in three folders."""
    for path, content in FILES.items():
        repository.backend.publish(path, content, None)
    return repository


def found(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_mlflow_is_asked_once_for_a_folder(filled: MemoryRepository, asked: list[str], tmp_path: Path) -> None:
    filled.download_artifacts("", str(tmp_path))
    assert found(tmp_path) == FILES
    assert len(asked) == 3


def test_a_folder_that_was_deleted_is_made_again(filled: MemoryRepository, asked: list[str], tmp_path: Path) -> None:
    target = tmp_path / "target"
    for _ in range(2):
        target.mkdir()
        filled.download_artifacts("sub/deep", str(target))
        assert found(target) == {"sub/deep/d.txt": b"d", "sub/deep/e.txt": b"e"}
        shutil.rmtree(target)
    assert len(asked) == 2


def test_a_folder_that_became_a_link_is_looked_at_again(
    filled: MemoryRepository, asked: list[str], tmp_path: Path
) -> None:
    """What MLflow then says counts; newer ones refuse a link that leads out of the destination."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    filled.download_artifacts("sub/deep", str(target))
    shutil.rmtree(target / "sub" / "deep")
    (target / "sub" / "deep").symlink_to(outside)
    count = len(asked)
    filled._create_download_destination("a.txt", str(target))
    with suppress(MlflowException):
        filled._create_download_destination("sub/deep/e.txt", str(target))
    assert len(asked) == count + 2


def test_a_file_that_is_a_link_is_mlflows_to_judge(filled: MemoryRepository, asked: list[str], tmp_path: Path) -> None:
    filled._create_download_destination("sub/c.txt", str(tmp_path))
    (tmp_path / "sub" / "x.txt").symlink_to(tmp_path / "sub" / "y.txt")
    local = filled._create_download_destination("sub/x.txt", str(tmp_path))
    assert asked == ["sub/c.txt", "sub/x.txt"]
    assert local == os.path.join(str(tmp_path), "sub", "x.txt")
