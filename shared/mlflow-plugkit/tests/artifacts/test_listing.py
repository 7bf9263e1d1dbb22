"""Listing and deletion end at the folder's boundary, and hostile names are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import BUCKETS, Bucket, Busy, Denied, MemoryRepository, always, nth
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import DeleteFailure
from mlflow_plugkit.artifacts.names import checked, is_clean

HOSTILE = [
    "../up.txt",
    "a/../../up.txt",
    "/absolute.txt",
    "a//b.txt",
    "a/./b.txt",
    "back\\slash.txt",
    "..\\up.txt",
    "%2e%2e/up.txt",
    "nul\0.txt",
    "line\nfeed.txt",
    "C:/drive.txt",
    "folder/",
    "./here.txt",
]

NAMES = st.sampled_from(["a", "b", "ab", "a-b", "a.txt", "A", " ", "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_not_listed(repository: MemoryRepository, name: str) -> None:
    """Neither the entry nor a folder that leads to it; and nothing of it can be downloaded."""
    repository.bucket.objects[f"root/{name}"] = (b"evil", 1, None)
    repository.bucket.objects["root/good.txt"] = (b"good", 2, None)
    seen, folders = [], [None]
    while folders:
        for info in repository.list_artifacts(folders.pop()):
            seen.append(info.path)
            if info.is_dir:
                folders.append(info.path)
    assert "good.txt" in seen
    assert all(is_clean(path) for path in seen)
    assert not [path for path in seen if "up.txt" in path or "drive" in path or "absolute" in path]


@pytest.mark.parametrize("name", HOSTILE[:-1])
def test_hostile_paths_are_refused(repository: MemoryRepository, tmp_path: Path, name: str) -> None:
    with pytest.raises(MlflowException) as caught:
        repository._download_file(name, str(tmp_path / "x"))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert not repository.bucket.calls, "a refused path reached the backend"


@given(st.text(max_size=12))
def test_the_fast_check_of_names_agrees_with_the_rules(name: str) -> None:
    try:
        checked(name)
    except MlflowException:
        assert not is_clean(name)
    else:
        assert is_clean(name)


@settings(deadline=None, max_examples=60)
@given(paths=st.sets(PATHS, max_size=12), target=st.none() | PATHS)
def test_deletion_removes_exactly_what_lies_below(paths: set[str], target: str | None) -> None:
    """As a model says it: the path itself, and what begins with the path and a slash."""
    BUCKETS["model"] = Bucket({f"root/{p}": (p.encode(), 1, None) for p in paths} | {"root2/x": (b"", 1, None)})
    MemoryRepository("memory://model/root").delete_artifacts(target)
    kept = {p for p in paths if target is not None and p != target and not p.startswith(f"{target}/")}
    assert set(BUCKETS["model"].objects) == {f"root/{p}" for p in kept} | {"root2/x"}


@settings(deadline=None, max_examples=60)
@given(paths=st.sets(PATHS, max_size=12), folder=st.none() | PATHS)
def test_a_listing_shows_exactly_one_level(paths: set[str], folder: str | None) -> None:
    """Files and folders of one name, which an object store allows, are both there."""
    BUCKETS["model"] = Bucket({f"root/{p}": (p.encode(), 1, None) for p in paths})
    infos = MemoryRepository("memory://model/root").list_artifacts(folder)
    start = f"{folder}/" if folder else ""
    below = [p[len(start) :] for p in paths if p.startswith(start)]
    wanted = {(start + b, False, len((start + b).encode())) for b in below if "/" not in b}
    wanted |= {(start + b.partition("/")[0], True, None) for b in below if "/" in b}
    assert {(i.path, i.is_dir, i.file_size) for i in infos} == wanted
    assert len(infos) == len(wanted)
    assert [i.path for i in infos] == sorted(i.path for i in infos)


def test_folder_markers_are_not_listed_and_are_deleted(repository: MemoryRepository) -> None:
    """Consoles of object stores make an empty object `folder/` where a user makes a folder."""
    repository.bucket.objects |= {"root/folder/": (b"", 1, None), "root/folder/x": (b"x", 1, None)}
    assert [i.path for i in repository.list_artifacts()] == ["folder"]
    assert [i.path for i in repository.list_artifacts("folder")] == ["folder/x"]
    repository.delete_artifacts("folder")
    assert not [key for key in repository.bucket.objects if key.endswith("/x")]


def test_deletion_goes_by_batches(repository: MemoryRepository) -> None:
    repository.backend.delete_batch = 7
    repository.bucket.objects |= {f"root/{n}": (b"", 1, None) for n in range(30)}
    repository.delete_artifacts()
    assert not repository.bucket.objects
    assert repository.bucket.count("delete") == 5


def test_failures_of_a_deletion_are_all_reported(repository: MemoryRepository) -> None:
    """What a second attempt does not delete is named, with the backend's own code."""
    repository.bucket.objects |= {f"root/{n}": (b"", 1, None) for n in range(3)}
    delete = repository.backend.delete_many

    def delete_some(paths: list[str]) -> list[DeleteFailure]:
        if "1" in paths:
            delete(["1"])
        return [DeleteFailure(p, "Locked", "is locked") for p in paths if p != "1"]

    repository.backend.delete_many = delete_some
    with pytest.raises(MlflowException) as caught:
        repository.delete_artifacts()
    assert all(word in str(caught.value) for word in ("2 artifacts", "'0'", "'2'", "Locked"))
    assert set(repository.bucket.objects) == {"root/0", "root/2"}


def test_failures_that_pass_are_mended(repository: MemoryRepository) -> None:
    repository.bucket.objects |= {f"root/{n}": (b"", 1, None) for n in range(3)}
    delete, left = repository.backend.delete_many, [True]

    def delete_later(paths: list[str]) -> list[DeleteFailure]:
        if left and left.pop():
            return [DeleteFailure(p, "SlowDown", "later") for p in paths]
        return list(delete(paths))

    repository.backend.delete_many = delete_later
    repository.bucket.before = nth(1, "list", Busy())
    repository.delete_artifacts()
    assert not repository.bucket.objects


def test_errors_of_a_listing_are_mapped(repository: MemoryRepository) -> None:
    repository.bucket.before = always("list", Denied)
    for call in (repository.list_artifacts, repository.delete_artifacts):
        with pytest.raises(MlflowException) as caught:
            call("a")
        assert caught.value.error_code == "PERMISSION_DENIED"
