"""A Storage Bucket as the place of artifacts: files that can be replaced, without commits."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from fake_hub import FakeHub
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_plugkit.artifacts.backend import Source
from mlflow_xet_artifacts import content


def test_a_folder_is_sent_in_batches(hub: FakeHub, bucket_id: str, tmp_path: Path) -> None:
    for n in range(1203):
        (tmp_path / f"{n}.txt").write_bytes(b"x" * n)
    artifacts = get_artifact_repository(f"xet://buckets/{bucket_id}/run")
    artifacts.log_artifacts(str(tmp_path), "tree")
    assert hub.counts["bucket_batch"] == 3
    assert {i.path: i.file_size for i in artifacts.list_artifacts("tree")} == {f"tree/{n}.txt": n for n in range(1203)}


def test_a_replaced_file_shows_its_new_content(bucket_id: str, tmp_path: Path) -> None:
    artifacts = get_artifact_repository(f"xet://buckets/{bucket_id}")
    file = tmp_path / "a.bin"
    for size in (300_000, 0, 7):
        written = os.urandom(size)
        file.write_bytes(written)
        artifacts.log_artifact(str(file))
        target = tmp_path / uuid.uuid4().hex
        target.mkdir()
        assert Path(artifacts.download_artifacts("a.bin", str(target))).read_bytes() == written


def test_parts_of_files_are_stored_and_read(bucket_id: str, tmp_path: Path) -> None:
    """The backend takes slices and bytes, and reads ranges of a pinned version."""
    backend = get_artifact_repository(f"xet://buckets/{bucket_id}/x")._engine.backend
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(range(256)) * 1000)
    stored = backend.put("a.bin", Source(file=file, start=10, size=1000), None)
    assert stored == backend.head("a.bin")
    assert b"".join(backend.read("a.bin", 5, 10, stored.version)) == file.read_bytes()[15:25]
    backend.put("a.bin", Source(data=b"new"), None)
    assert b"".join(backend.read("a.bin", 0, None)) == b"new"
    with pytest.raises(Exception, match="changed or deleted"):
        b"".join(backend.read("a.bin", 0, 3, stored.version))


def test_a_prefix_is_no_folder(bucket_id: str, tmp_path: Path) -> None:
    """The Hub's listing of `logs` also brings `logs-old`."""
    artifacts = get_artifact_repository(f"xet://buckets/{bucket_id}")
    (tmp_path / "a.txt").write_text("a")
    for folder in ("logs", "logs/deep", "logs-old", "logs-old/deep"):
        artifacts.log_artifact(str(tmp_path / "a.txt"), folder)
    assert [(i.path, i.is_dir) for i in artifacts.list_artifacts("logs")] == [
        ("logs/a.txt", False),
        ("logs/deep", True),
    ]
    artifacts.delete_artifacts("logs")
    assert [i.path for i in artifacts.list_artifacts()] == ["logs-old"]


def test_a_private_bucket_is_made_where_that_is_allowed(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    name = f"me/{uuid.uuid4().hex}"
    artifacts = get_artifact_repository(f"xet://buckets/{name}/x?create=true")
    assert artifacts.list_artifacts() == []
    artifacts.log_artifact(str(tmp_path / "a.txt"))
    assert list(hub.state.buckets[name]) == ["x/a.txt"]
    assert hub.created_private[name]


def test_a_deletion_that_the_hub_refuses_in_part_is_reported(hub: FakeHub, bucket_id: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    artifacts = get_artifact_repository(f"xet://buckets/{bucket_id}")
    artifacts.log_artifacts(str(tmp_path))
    hub.undeletable.add("b")
    with pytest.raises(MlflowException, match=r"1 artifacts could not be deleted: 'b'.*locked"):
        artifacts.delete_artifacts()
    assert [i.path for i in artifacts.list_artifacts()] == ["b"]


def test_a_download_of_other_content_never_appears(
    bucket_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hf_xet wrote is hashed again: here a byte of it changes before that."""
    monkeypatch.setenv("MLFLOW_XET_ATTEMPTS", "2")
    artifacts = get_artifact_repository(f"xet://buckets/{bucket_id}")
    (tmp_path / "a.bin").write_bytes(os.urandom(200_000))
    artifacts.log_artifact(str(tmp_path / "a.bin"))
    native = content.Downloads._native

    def damaged(self: object, wanted: object, target: str, received: object) -> None:
        native(self, wanted, target, received)  # type: ignore[arg-type]
        with open(target, "r+b") as file:
            file.seek(100_000)
            file.write(b"damage")

    monkeypatch.setattr(content.Downloads, "_native", damaged)
    (tmp_path / "target").mkdir()
    with pytest.raises(MlflowException, match="xet hash"):
        artifacts.download_artifacts("a.bin", str(tmp_path / "target"))
    assert not (tmp_path / "target" / "a.bin").exists()
