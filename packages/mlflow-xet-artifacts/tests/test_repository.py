"""A Hub repository as the place of artifacts: commits, branches, revisions, conflicts."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from fake_hub.state import File, Repository
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def repository_of(hub: FakeHub, repo_id: str) -> Repository:
    return hub.state.repository("model", repo_id)


def titles(hub: FakeHub, repo_id: str, branch: str = "main") -> list[str]:
    return [commit.title for commit in repository_of(hub, repo_id).history(branch)][:-1]


def fetched(artifacts: Any, path: str, folder: Path) -> bytes:
    target = folder / uuid.uuid4().hex
    target.mkdir()
    return Path(artifacts.download_artifacts(path, str(target))).read_bytes()


def test_a_folder_is_one_commit_and_a_deletion_too(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    artifacts = get_artifact_repository(f"xet://{repo_id}/main/run")
    files = {f"part-{n}/file-{m}.txt": b"x" for n in range(3) for m in range(500)} | {"weights.bin": b"w" * 100}
    artifacts.log_artifacts(str(write(tmp_path, files)), "model")
    assert titles(hub, repo_id) == ["Log 1501 artifacts in run/model"]
    artifacts.delete_artifacts("model")
    assert titles(hub, repo_id)[0] == "Delete 1501 artifacts in run/model"
    assert len(titles(hub, repo_id)) == 2
    assert artifacts.list_artifacts() == []


def test_the_commit_message_is_the_users(
    hub: FakeHub, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_XET_MESSAGE", "[mlflow] {action}: {count}")
    get_artifact_repository(f"xet://{repo_id}/main").log_artifacts(str(write(tmp_path, {"a": b"", "b": b""})))
    assert titles(hub, repo_id) == ["[mlflow] Log: 2"]


def test_what_is_there_already_makes_no_commit(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    """Neither does an empty folder, nor a deletion of nothing."""
    artifacts = get_artifact_repository(f"xet://{repo_id}/main")
    write(tmp_path / "tree", {"a.txt": b"a", "b.bin": b"b"})
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        artifacts.log_artifacts(str(tmp_path / "tree"))
    artifacts.log_artifacts(str(tmp_path / "empty"))
    artifacts.delete_artifacts("missing")
    assert len(titles(hub, repo_id)) == 1


def test_a_gitignore_drops_no_artifact(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    """The Hub leaves out what a `.gitignore` names, be it logged or in the repository, and reports success."""
    artifacts = get_artifact_repository(f"xet://{repo_id}/main")
    artifacts.log_artifacts(str(write(tmp_path / "1", {".gitignore": b"*.log\n*.bin\n", "a.log": b"1", "m.bin": b"2"})))
    artifacts.log_artifacts(str(write(tmp_path / "2", {"b.log": b"3", "n.bin": b"4"})))
    names = {info.path for info in artifacts.list_artifacts()}
    assert names == {".gitignore", "a.log", "m.bin", "b.log", "n.bin"}


def test_gits_own_file_is_no_artifact(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    """`.gitattributes` at the root is neither listed nor deleted nor replaced; elsewhere it is a file like others."""
    artifacts = get_artifact_repository(f"xet://{repo_id}/main")
    file = write(tmp_path, {".gitattributes": b"x"}) / ".gitattributes"
    artifacts.log_artifact(str(file), "below")
    artifacts.delete_artifacts()
    assert set(repository_of(hub, repo_id).at("main").files) == {".gitattributes"}
    with pytest.raises(MlflowException, match="belongs to git"):
        artifacts.log_artifact(str(file))


@pytest.mark.parametrize("name", [".git/config", "a/.cache/x"])
def test_what_the_hub_cannot_take_is_said_before_anything_is_sent(
    hub: FakeHub, repo_id: str, tmp_path: Path, name: str
) -> None:
    artifacts = get_artifact_repository(f"xet://{repo_id}/main")
    with pytest.raises(MlflowException, match="cannot take"):
        artifacts.log_artifacts(str(write(tmp_path, {name: b"", "fine.txt": b""})))
    assert titles(hub, repo_id) == []


def test_a_readme_that_the_hub_refuses_is_explained(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    artifacts = get_artifact_repository(f"xet://{repo_id}/main")
    with pytest.raises(MlflowException, match="Invalid metadata"):
        artifacts.log_artifacts(str(write(tmp_path, {"README.md": b"---\nbad: [\n---\n"})))


class TestCreation:
    """Repositories and branches are made where the settings allow it, and only there."""

    def test_nothing_is_made_without_being_asked_for(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        file = str(write(tmp_path, {"a.txt": b""}) / "a.txt")
        new = uuid.uuid4().hex
        for uri in (f"xet://me/{new}/main", f"xet://{repo_id}/new", f"xet://buckets/me/{new}"):
            artifacts = get_artifact_repository(uri)
            for call in (lambda at=artifacts: at.log_artifact(file), artifacts.list_artifacts):
                with pytest.raises(MlflowException, match="MLFLOW_XET_CREATE=true") as caught:
                    call()
                assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"

    @pytest.mark.parametrize("branch", ["main", "run%2Fone"])
    def test_a_private_repository_and_its_branch_are_made(self, hub: FakeHub, tmp_path: Path, branch: str) -> None:
        name = f"me/{uuid.uuid4().hex}"
        artifacts = get_artifact_repository(f"xet://{name}/{branch}?create=true")
        assert artifacts.list_artifacts() == []
        artifacts.delete_artifacts()
        assert ("model", name) not in hub.state.repositories
        artifacts.log_artifact(str(write(tmp_path, {"a.txt": b"a"}) / "a.txt"))
        made = repository_of(hub, name)
        assert made.private
        assert "a.txt" in made.at(branch.replace("%2F", "/")).files

    def test_an_exact_revision_is_never_made(self, hub: FakeHub, repo_id: str) -> None:
        with pytest.raises(MlflowException, match="Revision Not Found"):
            get_artifact_repository(f"xet://{repo_id}@v9?create=true").list_artifacts()

    def test_a_branch_deleted_in_between_is_made_again(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        artifacts = get_artifact_repository(f"xet://{repo_id}/run?create=true")
        write(tmp_path, {"a.txt": b"a", "b.txt": b"b"})
        artifacts.log_artifact(str(tmp_path / "a.txt"))
        del repository_of(hub, repo_id).branches["run"]
        assert artifacts.list_artifacts() == []
        artifacts.log_artifact(str(tmp_path / "b.txt"))
        assert [info.path for info in artifacts.list_artifacts()] == ["b.txt"]

    def test_a_branch_deleted_under_a_commit_is_an_error(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        def delete_once(repository: Repository, branch: str) -> None:
            hub.before_commit.clear()
            del repository.branches[branch]

        hub.before_commit.append(delete_once)
        with pytest.raises(MlflowException) as caught:
            get_artifact_repository(f"xet://{repo_id}/main").log_artifact(str(write(tmp_path, {"a": b""}) / "a"))
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


class TestExactRevisions:
    """`@revision` reads one version for ever, and refuses to write."""

    def test_a_commit_and_a_tag_are_read_as_they_were(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        branch = get_artifact_repository(f"xet://{repo_id}/main")
        file = tmp_path / "a.bin"
        file.write_bytes(b"first")
        branch.log_artifact(str(file))
        git = repository_of(hub, repo_id)
        first = git.branches["main"]
        git.tags["v1"] = first
        file.write_bytes(b"second")
        branch.log_artifact(str(file))
        for revision, content in ((first, b"first"), (first[:8], b"first"), ("v1", b"first"), ("main", b"second")):
            exact = get_artifact_repository(f"xet://{repo_id}@{revision}")
            assert fetched(exact, "a.bin", tmp_path) == content
            assert [(i.path, i.file_size) for i in exact.list_artifacts()] == [("a.bin", len(content))]

    def test_writing_is_refused(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        file = write(tmp_path / "x", {"a.txt": b""}) / "a.txt"
        get_artifact_repository(f"xet://{repo_id}/main").log_artifact(str(file))
        exact = get_artifact_repository(f"xet://{repo_id}@main")
        calls: list[Callable[[], object]] = [
            lambda: exact.log_artifact(str(file)),
            lambda: exact.log_artifacts(str(file.parent)),
            lambda: exact.delete_artifacts("a.txt"),
        ]
        for call in calls:
            with pytest.raises(MlflowException, match="can only be read") as caught:
                call()
            assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
        assert len(titles(hub, repo_id)) == 1

    def test_a_download_is_pinned_to_the_commit_that_was_seen(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        artifacts = get_artifact_repository(f"xet://{repo_id}/main")
        file = tmp_path / "a.txt"
        file.write_bytes(b"first")
        artifacts.log_artifact(str(file))
        backend = artifacts._engine.backend
        stored = backend.head("a.txt")
        file.write_bytes(b"second")
        artifacts.log_artifact(str(file))
        assert b"".join(backend.read("a.txt", 1, 3, stored.version)) == b"irs"
        assert b"".join(backend.read("a.txt", 0, None)) == b"second"
        backend._seen.clear()
        assert b"".join(backend.read("a.txt", 0, None, stored.version)) == b"first"


class TestConflicts:
    """Other writers' commits are kept, and a commit is tried again on top of them."""

    def test_a_commit_in_between_is_kept(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        left = [3]

        def intrude(repository: Repository, branch: str) -> None:
            if left[0]:
                left[0] -= 1
                files = dict(repository.at(branch).files) | {f"other-{left[0]}.txt": File.regular(b"o")}
                repository.commit(branch, "somebody else", files)

        hub.before_commit.append(intrude)
        artifacts = get_artifact_repository(f"xet://{repo_id}/main")
        artifacts.log_artifacts(str(write(tmp_path, {"a.txt": b"a", "b.bin": os.urandom(50_000)})))
        names = [info.path for info in artifacts.list_artifacts()]
        assert names == ["a.txt", "b.bin", "other-0.txt", "other-1.txt", "other-2.txt"]
        assert hub.counts["commit"] == 4
        assert hub.counts["preupload"] == 1

    @pytest.mark.parametrize("status", [409, 412])
    def test_a_deletion_meets_a_conflict(self, hub: FakeHub, repo_id: str, tmp_path: Path, status: int) -> None:
        """The file that another writer deleted meanwhile is no failure of this deletion."""
        artifacts = get_artifact_repository(f"xet://{repo_id}/main")
        artifacts.log_artifacts(str(write(tmp_path, {"x/a.txt": b"a", "x/b.txt": b"b", "xy": b""})))

        def delete_first(repository: Repository, branch: str) -> None:
            hub.before_commit.clear()
            files = dict(repository.at(branch).files)
            del files["x/a.txt"]
            repository.commit(branch, "somebody else", files)

        hub.before_commit.append(delete_first)
        hub.refuse(r"POST .*/commit/", status)
        artifacts.delete_artifacts("x")
        assert [info.path for info in artifacts.list_artifacts()] == ["xy"]

    def test_a_conflict_that_never_ends_is_an_error(
        self, hub: FakeHub, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mlflow_xet_artifacts.commits.time.sleep", lambda _: None)
        hub.refuse(r"POST .*/commit/", 412, times=1000)
        with pytest.raises(MlflowException, match="Give each writer its own") as caught:
            get_artifact_repository(f"xet://{repo_id}/main").log_artifact(str(write(tmp_path, {"a": b""}) / "a"))
        assert caught.value.error_code == "RESOURCE_CONFLICT"

    def test_a_commit_whose_answer_is_lost_is_not_made_twice(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        hub.refuse(r"POST .*/commit/", 503, after=True)
        get_artifact_repository(f"xet://{repo_id}/main").log_artifact(str(write(tmp_path, {"a.bin": b"a"}) / "a.bin"))
        assert len(titles(hub, repo_id)) == 1


class TestContent:
    """What is stored and what arrives is compared with its checksum."""

    def test_large_files_live_in_the_xet_storage_and_small_ones_in_git(
        self, hub: FakeHub, repo_id: str, tmp_path: Path
    ) -> None:
        artifacts = get_artifact_repository(f"xet://{repo_id}/main")
        content = os.urandom(1_500_000)
        artifacts.log_artifacts(str(write(tmp_path / "in", {"large.dat": content, "small.txt": b"small"})))
        files = repository_of(hub, repo_id).at("main").files
        assert files["large.dat"].sha256 == hashlib.sha256(content).hexdigest()
        assert files["large.dat"].content is None
        assert files["small.txt"].content == b"small"
        backend = artifacts._engine.backend
        assert b"".join(backend.read("large.dat", 1_000_000, 99)) == content[1_000_000:1_000_099]
        assert fetched(artifacts, "large.dat", tmp_path) == content

    def test_a_damaged_small_file_never_appears(
        self, hub: FakeHub, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_XET_ATTEMPTS", "2")
        artifacts = get_artifact_repository(f"xet://{repo_id}/main")
        artifacts.log_artifact(str(write(tmp_path, {"a.txt": b"content"}) / "a.txt"))
        hub.damaged_downloads = True
        with pytest.raises(MlflowException):
            fetched(artifacts, "a.txt", tmp_path)
        assert not list(tmp_path.glob("*/a.txt"))

    def test_an_upload_that_the_hub_stored_otherwise_is_sent_again(
        self, hub: FakeHub, repo_id: str, tmp_path: Path
    ) -> None:
        damaged = []

        def damage(repository: Repository, branch: str) -> None:
            """Stands in for a byte that changed on its way to the Hub."""
            original = repository.commit

            def commit(branch: str, title: str, files: Mapping[str, File], nonce: str = "") -> Any:
                repository.commit = original  # type: ignore[method-assign]
                damaged.append(branch)
                return original(branch, title, dict(files) | {"a.txt": File.regular(b"contant")}, nonce)

            hub.before_commit.clear()
            repository.commit = commit  # type: ignore[method-assign]

        hub.before_commit.append(damage)
        artifacts = get_artifact_repository(f"xet://{repo_id}/main")
        artifacts.log_artifact(str(write(tmp_path, {"a.txt": b"content"}) / "a.txt"))
        assert damaged == ["main"]
        assert fetched(artifacts, "a.txt", tmp_path) == b"content"

    def test_a_listing_reads_every_page_and_sees_sizes(self, hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
        hub.page_size = 10
        artifacts = get_artifact_repository(f"xet://{repo_id}/main/many")
        artifacts.log_artifacts(str(write(tmp_path, {f"{n:03}.txt": b"x" * n for n in range(35)} | {"f/a": b""})))
        hub.counts.clear()
        infos = artifacts.list_artifacts()
        assert [(i.path, i.file_size) for i in infos] == [(f"{n:03}.txt", n) for n in range(35)] + [("f", None)]
        assert hub.counts["tree"] == 4
