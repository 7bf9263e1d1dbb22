"""Rules for an artifact repository: `list_artifacts` and `delete_artifacts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_plugkit_testing.artifacts_base import ArtifactSuite, listed, outcome, read_tree, store, write_tree

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

SIBLINGS = {"a/x.txt": b"1", "a/deep/y.txt": b"22", "ab/x.txt": b"3", "a.txt": b"4", "a-b/x.txt": b"5"}


class ArtifactListingRules(ArtifactSuite):
    """`list_artifacts`: one level, full paths, sizes, order and boundaries."""

    def test_listing_shows_one_level_only(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A listing holds what stands directly below the path; deeper files appear as their folder."""
        store(repository, tmp_path, SIBLINGS)
        entries = {(info.path, info.is_dir) for info in repository.list_artifacts()}
        assert entries == {("a", True), ("ab", True), ("a-b", True), ("a.txt", False)}, (
            f"the root's listing must hold one level, each entry once, folders marked is_dir: {sorted(entries)}"
        )

    def test_listed_paths_start_at_the_root(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """`FileInfo.path` is relative to the repository's root, not to the listed folder."""
        store(repository, tmp_path, SIBLINGS)
        paths = {info.path for info in repository.list_artifacts("a")}
        assert paths == {"a/x.txt", "a/deep"}, f"listed paths must be relative to the root: {sorted(paths)}"

    def test_listing_is_sorted_by_path(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Entries come sorted by path, whatever order they were stored in."""
        store(repository, tmp_path, {f"{name}.txt": b"" for name in ("m", "z", "a", "k", "B")} | {"c/d.txt": b""})
        paths = [info.path for info in repository.list_artifacts()]
        assert paths == sorted(paths), f"list_artifacts must return entries sorted by path: {paths}"

    def test_files_have_sizes_and_folders_none(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """`file_size` is the bytes of a file as an int, and None for a folder."""
        store(repository, tmp_path, {"file.bin": b"12345", "folder/file.bin": b"1"})
        sizes = {info.path: info.file_size for info in repository.list_artifacts()}
        assert sizes == {"file.bin": 5, "folder": None}, f"wrong file_size in the listing: {sizes}"
        assert type(sizes["file.bin"]) is int, f"file_size must be an int: {sizes}"

    def test_listing_of_nothing_is_empty(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A path that is not there lists as empty, and so does an unused root."""
        unused = outcome(repository.list_artifacts)
        assert unused == "accepted", f"listing an unused root must return [], not raise: {unused}"
        assert list(repository.list_artifacts()) == [], "an unused root must list as []"
        store(repository, tmp_path, {"there/file.txt": b""})
        missing = outcome(lambda: repository.list_artifacts("there/not"))
        assert missing == "accepted", f"listing a missing path must return [], not raise: {missing}"
        assert list(repository.list_artifacts("there/not")) == [], "a missing path must list as []"

    def test_listing_of_a_file_is_empty(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A file lists as empty; by that MLflow tells files from folders (`_is_directory`)."""
        store(repository, tmp_path, {"a/file.txt": b"x"})
        entries = [info.path for info in repository.list_artifacts("a/file.txt")]
        assert entries == [], f"listing a file must return [], or MLflow takes it for a folder: {entries}"

    def test_listing_ends_at_the_folder_boundary(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """The folder `a` holds nothing of `ab`, `a-b` or `a.txt`, which share its prefix."""
        store(repository, tmp_path / "in", SIBLINGS)
        strangers = sorted(path for path in listed(repository, "a") if not path.startswith("a/"))
        assert not strangers, f"listing 'a' shows files of siblings that share its prefix: {strangers}"
        target = tmp_path / "target"
        target.mkdir()
        repository.download_artifacts("a", str(target))
        assert set(read_tree(target)) == {"a/x.txt", "a/deep/y.txt"}, "downloading 'a' brought files of its siblings"

    def test_listing_reads_every_page(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A folder with more entries than the backend's page lists completely."""
        wanted = self._store_many(repository, tmp_path)
        entries = {info.path for info in repository.list_artifacts("many")}
        assert entries == wanted, f"a folder of {len(wanted)} files lists {len(entries)}: read every page"

    def test_deletion_reaches_every_page(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Deleting a folder with more entries than the backend's page leaves none behind."""
        wanted = self._store_many(repository, tmp_path)
        repository.delete_artifacts("many")
        left = list(repository.list_artifacts("many"))
        assert not left, f"deleting a folder of {len(wanted)} files left {len(left)}: delete every page"

    def _store_many(self, repository: ArtifactRepository, tmp_path: Path) -> set[str]:
        if not self.supports_many_files:
            pytest.skip("the plugin declares supports_many_files = False")
        names = [f"f{n:05}.txt" for n in range(self.page_size + 5)]
        repository.log_artifacts(str(write_tree(tmp_path / "many", dict.fromkeys(names, b"x"))), "many")
        return {f"many/{name}" for name in names}


class ArtifactDeletionRules(ArtifactSuite):
    """`delete_artifacts`, which `mlflow gc` relies on; the base class's version silently does nothing."""

    def test_deletion_of_a_file_removes_it_alone(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A deleted file is gone, and its neighbours stay."""
        store(repository, tmp_path, SIBLINGS)
        repository.delete_artifacts("a/x.txt")
        left = set(listed(repository))
        assert "a/x.txt" not in left, "delete_artifacts left the file: the base class's version does nothing"
        assert left == SIBLINGS.keys() - {"a/x.txt"}, (
            f"deleting one file removed others: {sorted(SIBLINGS.keys() - left)}"
        )

    def test_deletion_of_a_folder_removes_all_below(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Deleting a folder is recursive."""
        store(repository, tmp_path, SIBLINGS)
        repository.delete_artifacts("a")
        left = sorted(path for path in listed(repository) if path.startswith("a/"))
        assert not left, f"deleting a folder must be recursive, but it left {left}"

    def test_deletion_ends_at_the_folder_boundary(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Deleting `a` leaves `ab`, `a-b` and `a.txt`, which share its prefix."""
        store(repository, tmp_path, SIBLINGS)
        repository.delete_artifacts("a")
        lost = sorted({"ab/x.txt", "a-b/x.txt", "a.txt"} - listed(repository).keys())
        assert not lost, f"deleting 'a' also deleted siblings that share its prefix: {lost}"

    def test_deletion_without_path_empties_the_root(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """`mlflow gc` calls `delete_artifacts()` to remove all that a run has stored."""
        store(repository, tmp_path, SIBLINGS)
        repository.delete_artifacts()
        left = sorted(listed(repository))
        assert not left, f"delete_artifacts() without a path must empty the root, but it left {left}"

    def test_a_trailing_slash_names_the_same_folder(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """`mlflow gc` of a proxied run deletes `<run>/artifacts/`, with a slash (HttpArtifactRepository)."""
        store(repository, tmp_path, SIBLINGS)
        result = outcome(lambda: repository.delete_artifacts("a/"))
        left = sorted(path for path in listed(repository) if path.startswith("a/"))
        assert (result, left) == ("accepted", []), (
            f"deleting 'a/' must delete the folder 'a', or `mlflow gc` fails behind a server: {result}, left {left}"
        )

    def test_deletion_of_the_missing_is_quiet(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Deleting what is not there passes, so that an interrupted `mlflow gc` can be repeated."""
        store(repository, tmp_path, {"kept.txt": b""})
        result = outcome(lambda: repository.delete_artifacts("not/there"))
        assert result == "accepted", f"deleting a missing path must pass quietly: {result}"
        assert set(listed(repository)) == {"kept.txt"}, "deleting a missing path removed something else"
