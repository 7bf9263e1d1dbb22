"""A drop-in for aliyunstoreplugin: what it wrote is read, and what is written here is where it would look.

The keys below are those that aliyunstoreplugin 1.0.0 makes (read in its wheel): the URI's path as it stands, the
artifact path and the file's name, joined by slashes; PutObject with a content type guessed from the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import oss2
import pytest
from conftest import KEY_ID, KEY_SECRET
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from oss_emulator import Emulator

KEYS = {
    "mlflow/0/run/artifacts/metrics.csv": b"a,b\n",
    "mlflow/0/run/artifacts/model/MLmodel": b"flavors: {}\n",
    "mlflow/0/run/artifacts/model/data/model.pkl": bytes(range(256)),
    "mlflow/0/run/artifacts/empty": b"",
}
URI = "oss://artifacts/mlflow/0/run/artifacts"


@pytest.fixture
def old_bucket(oss_env: Any, emulator: Emulator) -> Any:
    """The bucket as aliyunstoreplugin opens it: V1 signatures from the three variables that MLflow documents."""
    bucket = oss2.Bucket(oss2.Auth(KEY_ID, KEY_SECRET), emulator.url, "artifacts")
    for key, content in KEYS.items():
        bucket.put_object(key, content)
    assert emulator.versions == {"v1": len(KEYS)}
    return bucket


def test_what_it_wrote_is_listed_and_read(old_bucket: Any, tmp_path: Path) -> None:
    repository = get_artifact_repository(URI)
    assert [(i.path, i.is_dir, i.file_size) for i in repository.list_artifacts()] == [
        ("empty", False, 0), ("metrics.csv", False, 4), ("model", True, None),
    ]  # fmt: skip
    repository.download_artifacts("", str(tmp_path))
    for key, content in KEYS.items():
        assert (tmp_path / key.removeprefix("mlflow/0/run/artifacts/")).read_bytes() == content


def test_what_is_written_here_has_the_same_keys(oss_env: Any, emulator: Emulator, tmp_path: Path) -> None:
    for key, content in KEYS.items():
        file = tmp_path / key.removeprefix("mlflow/0/run/artifacts/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    get_artifact_repository(URI).log_artifacts(str(tmp_path))
    assert {key: o.data for key, o in emulator.buckets["artifacts"].objects.items()} == KEYS


def test_a_percent_sign_in_the_location_is_part_of_the_key(oss_env: Any, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    get_artifact_repository("oss://artifacts/my%20team").log_artifact(str(tmp_path / "a"))
    assert list(emulator.buckets["artifacts"].objects) == ["my%20team/a"]


def test_what_it_wrote_is_deleted(old_bucket: Any, emulator: Emulator) -> None:
    get_artifact_repository(URI).delete_artifacts("model")
    assert set(emulator.buckets["artifacts"].objects) == {k for k in KEYS if "/model/" not in k}
