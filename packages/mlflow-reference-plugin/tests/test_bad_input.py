"""Bad input is refused at the edge: what MLflow's user sees, and that nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_plugkit.settings import InlineSecretWarning

SECRET = "hunter2-Zq8"


def open_store(uri: str) -> None:
    mlflow.MlflowClient(uri).search_experiments()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file-plugin:", "names no folder"),
        ("file-plugin:///", "names no folder"),
        ("file-plugin:{}/missing", "does not exist. Make it with mkdir -p, or add ?create=true"),
        ("file-plugin:{}/no/such", "and neither does"),
        ("file-plugin:{}/file", "is a file"),
        ("file-plugin:{}/../x", "climbs out"),
        ("file-plugin:{}/%2e%2e/x", "climbs out"),
        ("file-plugin:{}/a%00b", "control character"),
        ("file-plugin:{}/a%5cb", "backslash"),
        ("file-plugin:{}/%ff", "not valid UTF-8"),
        ("file-plugin:{}/a%3Fb", "holds a '?'"),
        ("file-plugin://host/folder", "names a host"),
        ("file-plugin:{}?creat=true", "Did you mean 'create'?"),
        ("file-plugin:{}?create=perhaps", "which is no true or false"),
        ("file-plugin:{}?create=", "has no value"),
    ],
)
def test_a_bad_store_uri_is_refused_and_leaves_nothing_behind(uri: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MlflowException) as refusal:
        open_store(uri.format(tmp_path))
    assert says in str(refusal.value)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
    assert os.listdir(tmp_path) == ["file"]


def test_an_inline_password_warns_and_is_refused_when_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"file-plugin://ann:{SECRET}@{tmp_path}"
    with pytest.warns(InlineSecretWarning, match="MLflow stores such a URI in clear") as warned:
        repository = get_artifact_repository(uri)
    assert repository.list_artifacts() == []
    assert SECRET not in f"{repository!r}{vars(repository)}"
    assert SECRET not in "".join(str(w.message) for w in warned)
    monkeypatch.setenv("MLFLOW_PLUGKIT_STRICT", "true")
    with pytest.raises(MlflowException, match="MLFLOW_PLUGKIT_STRICT is set") as refusal:
        get_artifact_repository(uri)
    assert SECRET not in str(refusal.value)


def test_a_file_name_that_is_not_utf8_is_refused_before_any_file_is_stored(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    try:
        (folder / os.fsdecode(b"caf\xe9.txt")).write_text("b")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    repository = get_artifact_repository(f"file-plugin:{tmp_path}/root")
    with pytest.raises(MlflowException, match="not valid UTF-8") as refusal:
        repository.log_artifacts(str(folder))
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
    assert repository.list_artifacts() == []


@pytest.mark.parametrize("missing", ["gone.txt", "gone/gone.txt"])
def test_a_local_file_that_is_not_there_is_named(missing: str, tmp_path: Path) -> None:
    repository = get_artifact_repository(f"file-plugin:{tmp_path}/root")
    with pytest.raises(MlflowException, match=r"gone\.txt"):
        repository.log_artifact(str(tmp_path / missing))
    assert repository.list_artifacts() == []


def test_a_link_out_of_the_artifact_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside.txt").write_text("private")
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    repository = get_artifact_repository(f"file-plugin:{tmp_path}/root")
    with pytest.raises(MlflowException, match="through a link"):
        repository.download_artifacts("link/outside.txt", str(tmp_path / "root"))
