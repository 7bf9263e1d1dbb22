"""Artifact repositories with one fault each, or with faults that do not hide one another."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from folder_artifacts import ENDPOINT, FolderRepository, FullRepository, object_server, presigned
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

from mlflow_plugkit.uri import validate_path
from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance

SECRET = "hunter2-shown"


class Broken(ArtifactRepositoryConformance):
    factory = FolderRepository

    @pytest.fixture
    def artifact_uri(self, tmp_path):
        return f"broken-folder:{tmp_path}/root"

    def make_repository(self, uri):
        return self.factory(uri)

    def repository_factory(self, uri):
        return self.factory


class TestOldConstructor(Broken):
    breaks = {"test_constructor_takes_what_every_mlflow_passes": "refuses a call that MLflow makes"}

    class factory(FolderRepository):
        def __init__(self, artifact_uri):
            super().__init__(artifact_uri)


class TestEagerConstructor(Broken):
    breaks = {"test_constructor_does_no_io": "the constructor does I/O"}

    class factory(FolderRepository):
        def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **_):
            super().__init__(artifact_uri)
            self.root.mkdir(parents=True, exist_ok=True)


class TestNotARepository(Broken):
    breaks = {"test_repository_is_an_artifact_repository": "is no mlflow.store.artifact"}

    class factory:
        def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **_): ...


class Trusting(FolderRepository):
    def local(self, path):
        return self.root / path if path else self.root

    def log_artifacts(self, local_dir, artifact_path=None):
        for name in os.listdir(local_dir):
            self.log_artifact(os.path.join(local_dir, name), artifact_path)


class TestNoPathChecks(Broken):
    breaks = {
        "test_logging_refuses_hostile_paths": "logging must refuse hostile paths",
        "test_listing_refuses_hostile_paths": "listing must refuse hostile paths",
        "test_download_refuses_hostile_paths": "_download_file must refuse hostile paths",
        "test_deletion_refuses_hostile_paths": "deletion must refuse hostile paths",
    }
    factory = Trusting


class TestOwnDownload(Broken):
    breaks = {
        "test_download_artifacts_is_left_to_mlflow": "drops MLflow's containment checks",
        "test_hostile_listing_writes_nothing_outside": "write outside its destination",
        "test_missing_artifact_leaves_no_file_behind": "a failed download left files behind",
        "test_download_without_destination_makes_one": "must return the path of a local file",
    }

    class factory(Trusting):
        def download_artifacts(self, artifact_path, dst_path=None):
            if dst_path is None:
                return artifact_path
            names = [info.path for info in self.list_artifacts(artifact_path)] or [artifact_path]
            for name in names:
                target = Path(dst_path) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.write(self.local(name).read_bytes())
            return str(Path(dst_path) / artifact_path)


class TestTextMode(Broken):
    breaks = {
        "test_log_artifact_stores_the_bytes_at_the_root": "changed the bytes",
        "test_large_files_survive": "came back with other bytes",
    }

    class factory(FolderRepository):
        def write(self, target, chunks):
            super().write(target, (chunk.replace(b"\r\n", b"\n\n") for chunk in chunks))


class TestArtifactPathTakenForTheFile(Broken):
    breaks = {"test_log_artifact_stores_the_file_inside_artifact_path": "must store artifact_path/<name of the file>"}

    class factory(FolderRepository):
        def path_in(self, artifact_path, name):
            return self.local(artifact_path or name)


class TestMovesFiles(Broken):
    breaks = {"test_log_artifact_leaves_the_local_file_alone": "removed the local file"}

    class factory(FolderRepository):
        def log_artifact(self, local_file, artifact_path=None):
            super().log_artifact(local_file, artifact_path)
            os.remove(local_file)


class TestKeepsTheFirstVersion(Broken):
    breaks = {"test_log_artifact_replaces_an_older_file": "must replace the content"}

    class factory(FolderRepository):
        def write(self, target, chunks):
            if not target.exists():
                super().write(target, chunks)


class TestSkipsEmptyFiles(Broken):
    breaks = {"test_empty_files_are_stored": "an empty file must be stored"}

    class factory(FolderRepository):
        def log_artifact(self, local_file, artifact_path=None):
            if os.path.getsize(local_file):
                super().log_artifact(local_file, artifact_path)


class TestFlatTrees(Broken):
    breaks = {
        "test_log_artifacts_stores_a_tree": "must store the whole tree",
        "test_log_artifacts_stores_a_tree_inside_artifact_path": "must store each file as artifact_path/",
    }

    class factory(FolderRepository):
        def log_artifacts(self, local_dir, artifact_path=None):
            for path in Path(local_dir).rglob("*"):
                if path.is_file():
                    self.log_artifact(str(path), artifact_path)


class TestDecodedNames(Broken):
    breaks = {"test_awkward_names_survive": "names did not survive"}

    class factory(FolderRepository):
        def path_in(self, artifact_path, name):
            return super().path_in(artifact_path, unquote(name))


class TestListingWithoutFolders(Broken):
    breaks = {
        "test_download_of_a_folder_keeps_its_paths": "must bring exactly the files below it",
        "test_download_of_the_root_brings_everything": "must bring the whole root",
    }

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            return [info for info in super().list_artifacts(path) if not info.is_dir]


class TestRawErrors(Broken):
    breaks = {
        "test_missing_artifact_is_reported_as_missing": "raise MlflowException with RESOURCE_DOES_NOT_EXIST",
        "test_listing_of_nothing_is_empty": "listing an unused root must return []",
        "test_deletion_of_the_missing_is_quiet": "deleting a missing path must pass quietly",
    }

    class factory(FolderRepository):
        def _download_file(self, remote_file_path, local_path):
            shutil.copyfile(self.local(remote_file_path), local_path)

        def list_artifacts(self, path=None):
            if not self.local(path).exists():
                raise FileNotFoundError(path)
            return super().list_artifacts(path)

        def delete_artifacts(self, artifact_path=None):
            shutil.rmtree(self.local(artifact_path))


class TestMissingLocalFilesArePassedOver(Broken):
    breaks = {
        "test_missing_local_file_is_reported": "log_artifact of a missing path passes",
        "test_missing_local_folder_is_reported": "log_artifacts of a missing path passes",
    }

    class factory(FolderRepository):
        def log_artifact(self, local_file, artifact_path=None):
            if os.path.isfile(local_file):
                super().log_artifact(local_file, artifact_path)

        def log_artifacts(self, local_dir, artifact_path=None):
            if os.path.isdir(local_dir):
                super().log_artifacts(local_dir, artifact_path)


class TestUncheckedDownloads(Broken):
    breaks = {
        "test_interrupted_download_is_never_taken_for_the_file": "a download that was interrupted passes",
        "test_corrupted_download_is_never_taken_for_the_file": "a download that was corrupted passes",
    }

    class factory(FolderRepository):
        def _download_file(self, remote_file_path, local_path):
            with open(local_path, "wb") as file:
                file.writelines(self.transfer(self.local(remote_file_path)))

    @contextmanager
    def interrupted_downloads(self, repository):
        repository.transfer = lambda source: list(repository.read(source))[:1]
        yield

    corrupted_downloads = interrupted_downloads


class TestManifestWithoutLock(Broken):
    breaks = {"test_concurrent_writers_lose_nothing": "concurrent writers of different files lost"}

    class factory(FolderRepository):
        def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **_):
            super().__init__(artifact_uri)
            self.names = set()
            self.meeting = threading.Barrier(8)

        def write(self, target, chunks):
            super().write(target, chunks)
            names = set(self.names)
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait(5)
            self.names = names | {target.name}

        def list_artifacts(self, path=None):
            return [i for i in super().list_artifacts(path) if i.is_dir or os.path.basename(i.path) in self.names]


class TestRecursiveListing(Broken):
    breaks = {"test_listing_shows_one_level_only": "must hold one level"}

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            found = super().list_artifacts(path)
            return found + [deep for info in found if info.is_dir for deep in self.list_artifacts(info.path)]


class TestPathsFromTheListedFolder(Broken):
    breaks = {"test_listed_paths_start_at_the_root": "listed paths must be relative to the root"}

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            return [FileInfo(os.path.basename(i.path), i.is_dir, i.file_size) for i in super().list_artifacts(path)]


class TestUnsortedListing(Broken):
    breaks = {"test_listing_is_sorted_by_path": "must return entries sorted by path"}

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            return super().list_artifacts(path)[::-1]


class TestFoldersWithSizes(Broken):
    breaks = {"test_files_have_sizes_and_folders_none": "wrong file_size in the listing"}

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            return [FileInfo(i.path, i.is_dir, i.file_size or 0) for i in super().list_artifacts(path)]


class TestFileListsItself(Broken):
    breaks = {"test_listing_of_a_file_is_empty": "listing a file must return []"}

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            if path and self.local(path).is_file():
                return [FileInfo(path, False, self.local(path).stat().st_size)]
            return super().list_artifacts(path)


class TestPrefixesWithoutBoundary(Broken):
    breaks = {
        "test_listing_ends_at_the_folder_boundary": "shows files of siblings that share its prefix",
        "test_deletion_ends_at_the_folder_boundary": "also deleted siblings that share its prefix",
    }

    class factory(FolderRepository):
        def keys(self, prefix):
            keys = (p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
            return sorted(key for key in keys if key.startswith(prefix))

        def list_artifacts(self, path=None):
            return [FileInfo(key, False, 1) for key in self.keys(path)] if path else super().list_artifacts()

        def delete_artifacts(self, artifact_path=None):
            for key in self.keys(artifact_path or ""):
                self.local(key).unlink()


class TestFirstPageOnly(Broken):
    breaks = {
        "test_listing_reads_every_page": "read every page",
        "test_deletion_reaches_every_page": "delete every page",
    }
    page_size = 20

    class factory(FolderRepository):
        def list_artifacts(self, path=None):
            return super().list_artifacts(path)[:20]

        def delete_artifacts(self, artifact_path=None):
            for info in self.list_artifacts(artifact_path):
                self.local(info.path).unlink()


class TestDeletionOfTheBaseClass(Broken):
    breaks = {
        "test_deletion_of_a_file_removes_it_alone": "the base class's version does nothing",
        "test_deletion_of_a_folder_removes_all_below": "deleting a folder must be recursive",
        "test_deletion_without_path_empties_the_root": "must empty the root",
    }

    class factory(FolderRepository):
        def delete_artifacts(self, artifact_path=None):
            pass


class TestRefusesTrailingSlashes(Broken):
    breaks = {"test_a_trailing_slash_names_the_same_folder": "deleting 'a/' must delete the folder 'a'"}

    class factory(FolderRepository):
        def local(self, path):
            return self.root / validate_path(path) if path else self.root


class TestShowsItsSecret(Broken):
    breaks = {"test_no_secret_is_shown": "a secret is shown in a log record and in a repr"}

    @pytest.fixture
    def secrets(self):
        return (SECRET,)

    class factory(FolderRepository):
        def __repr__(self):
            return f"Folder(token={SECRET!r})"

        def log_artifact(self, local_file, artifact_path=None):
            logging.getLogger("broken_folder").debug("Authorization: Bearer %s", SECRET)
            super().log_artifact(local_file, artifact_path)


class TestMixinsInNameOnly(Broken):
    breaks = {
        "test_multipart_upload_assembles_the_parts": "did not become the file",
        "test_aborted_multipart_upload_leaves_nothing": "can still be completed",
        "test_presigned_download_serves_the_bytes": "does not serve the artifact",
        "test_presigned_upload_stores_the_bytes": "did not become the artifact",
        "test_streamed_upload_stores_the_bytes": "is not listed as it is",
        "test_broken_stream_leaves_nothing": "passes as a complete upload",
        "test_mixins_refuse_hostile_paths": "mixins must refuse hostile paths",
    }

    @pytest.fixture(autouse=True)
    def presigned_urls(self, monkeypatch):
        with object_server() as url:
            monkeypatch.setenv(ENDPOINT, url)
            yield

    class factory(FullRepository):
        def local(self, path):
            return self.root / path.replace("\0", "").lstrip("/") if path else self.root

        def complete_multipart_upload(self, local_file, upload_id, parts, artifact_path=None):
            super().complete_multipart_upload(local_file, upload_id, parts[:1], artifact_path)

        def abort_multipart_upload(self, local_file, upload_id, artifact_path=None):
            pass

        def get_download_presigned_url(self, artifact_path, expiration=300):
            return SimpleNamespace(url=presigned(self.root / "elsewhere"), headers={}, file_size=None)

        def create_presigned_upload_url(self, artifact_path, expiration=900):
            return SimpleNamespace(presigned_url=presigned(self.root.parent / "elsewhere"), headers={})

        def log_artifact_from_stream(self, stream, artifact_file_name, artifact_path=None):
            with suppress(ConnectionResetError):
                self.write(self.path_in(artifact_path, artifact_file_name), [stream.read(1 << 20)])

        async def log_artifact_from_async_stream(self, chunks, artifact_file_name, artifact_path=None):
            received = []
            with suppress(ConnectionResetError):
                async for chunk in chunks:
                    received.append(chunk)
            self.write(self.path_in(artifact_path, artifact_file_name), received[:1])


class TestLosesContent(Broken):
    breaks = {
        "test_a_run_logs_and_reads_artifacts": "load_text returned another text",
        "test_a_model_is_logged_and_loaded": "could not be loaded back",
    }

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch):
        registry = _artifact_repository_registry._registry
        monkeypatch.setitem(registry, "broken-folder", self.factory)

    class factory(FolderRepository):
        def write(self, target, chunks):
            content = b"".join(chunks)
            super().write(target, [content if target.suffix in (".yaml", ".json") else b""])
            if target.name == "MLmodel":
                super().write(target, [content])
