"""Xet keeps what is already there: a model that changed a little costs a little."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_hub import FakeHub
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("kind", ["repository", "bucket"])
def test_one_changed_percent_costs_about_one_percent(
    hub: FakeHub, repo_id: str, bucket_id: str, tmp_path: Path, kind: str
) -> None:
    """64 MiB, of which one stretch of 1 % changes and, once more, is shifted by inserted bytes."""
    uri = f"xet://{repo_id}/main" if kind == "repository" else f"xet://buckets/{bucket_id}"
    artifacts, file, size = get_artifact_repository(uri), tmp_path / "model.bin", 64 * MEBIBYTE
    content = os.urandom(size)
    changed = content[: size // 2] + os.urandom(size // 100) + content[size // 2 + size // 100 :]
    growth = []
    for version in (content, changed, b"inserted" + changed):
        before = hub.shards.stored_bytes()
        file.write_bytes(version)
        artifacts.log_artifact(str(file))
        growth.append(hub.shards.stored_bytes() - before)
    (tmp_path / "target").mkdir()
    assert Path(artifacts.download_artifacts("model.bin", str(tmp_path / "target"))).read_bytes() == file.read_bytes()
    assert growth[0] >= size
    assert growth[1] < 0.02 * size, f"1 % changed and {growth[1] / size:.2%} was stored"
    assert growth[2] < 0.01 * size, f"8 bytes were inserted and {growth[2] / size:.2%} was stored"


def test_downloads_do_not_fill_the_hubs_cache(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    artifacts = get_artifact_repository(f"xet://{repo_id}/main")
    (tmp_path / "model.bin").write_bytes(os.urandom(8 * MEBIBYTE))
    artifacts.log_artifact(str(tmp_path / "model.bin"))
    home = hub.folder / "home"
    before = sum(f.stat().st_size for f in home.rglob("*") if f.is_file())
    (tmp_path / "target").mkdir()
    artifacts.download_artifacts("model.bin", str(tmp_path / "target"))
    after = sum(f.stat().st_size for f in home.rglob("*") if f.is_file())
    assert after - before < MEBIBYTE
    assert not (home / "hub").exists()
