"""Rules for an artifact repository: construction, upload and download."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_plugkit_testing.artifacts_base import (
    ArtifactSuite,
    fetched,
    listed,
    outcome,
    random_bytes,
    read_tree,
    store,
    write_tree,
)

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

TREE = {"top.txt": b"top", "a/one.bin": bytes(range(256)), "a/b/two.txt": b"two", "a/b/c/three.txt": b"3"}
AWKWARD = {
    "with space.txt": b"1",
    "plus+sign.txt": b"2",
    "100%.txt": b"3",
    "encoded%20name.txt": b"4",
    "Grüße/日本語.txt": b"5",
    "a&b=c;d,e.txt": b"6",
    "UPPER/lower.TXT": b"7",
    ".hidden": b"8",
}
_IO_EVENTS = {
    "socket.connect": "connects",
    "socket.getaddrinfo": "resolves a host name",
    "subprocess.Popen": "starts a process",
    "os.mkdir": "makes a folder",
    "sqlite3.connect": "opens a database",
    "_thread.start_new_thread": "starts a thread",
}


class ArtifactTransferRules(ArtifactSuite):
    """Construction, `log_artifact`, `log_artifacts`, `download_artifacts` and `_download_file`."""

    def test_constructor_takes_what_every_mlflow_passes(self, artifact_uri: str) -> None:
        """Each MLflow release calls the constructor in its own way; a later one may pass a further keyword."""
        factory = self.repository_factory(artifact_uri)
        forms: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((artifact_uri,), {}),
            ((artifact_uri, None), {}),
            ((artifact_uri,), {"tracking_uri": None}),
            ((artifact_uri,), {"tracking_uri": None, "registry_uri": None}),
            ((artifact_uri,), {"tracking_uri": None, "registry_uri": None, "an_option_of_a_later_mlflow": None}),
        ]
        refused = {}
        for args, kwargs in forms:
            result = outcome(lambda args=args, kwargs=kwargs: factory(*args, **kwargs))  # type: ignore[misc] # bound per turn
            if result != "accepted":
                refused[f"({', '.join(['uri', 'tracking_uri'][: len(args)] + list(kwargs))})"] = result
        assert not refused, (
            f"the constructor refuses a call that MLflow makes: {refused}. Declare it as (artifact_uri, "
            "tracking_uri=None, registry_uri=None, **kwargs): mlflow.store.artifact.artifact_repository_registry"
        )

    def test_constructor_does_no_io(self, artifact_uri: str) -> None:
        """Making a repository neither connects nor writes nor starts anything: MLflow makes one for each call."""
        self.make_repository(artifact_uri)  # imports happen here
        with _recorded_io() as events:
            self.make_repository(artifact_uri)
        assert not events, f"the constructor does I/O ({sorted(set(events))}); do it on first use"

    def test_repository_is_an_artifact_repository(self, repository: ArtifactRepository) -> None:
        """It subclasses MLflow's ArtifactRepository and has called its constructor."""
        from mlflow.store.artifact.artifact_repo import ArtifactRepository

        assert isinstance(repository, ArtifactRepository), (
            f"{type(repository).__name__} is no mlflow.store.artifact.artifact_repo.ArtifactRepository"
        )
        missing = [name for name in ("artifact_uri", "thread_pool") if not hasattr(repository, name)]
        assert not missing, f"ArtifactRepository.__init__ was not called: {missing} missing"

    def test_download_artifacts_is_left_to_mlflow(self, repository: ArtifactRepository) -> None:
        """MLflow's own `download_artifacts` holds the containment checks, the thread pool and the error report."""
        from mlflow.store.artifact.artifact_repo import ArtifactRepository

        own = type(repository).download_artifacts is not ArtifactRepository.download_artifacts
        assert own == self.overrides_download_artifacts, (
            "download_artifacts is overridden, which drops MLflow's containment checks: implement _download_file "
            "(or set overrides_download_artifacts = True)"
            if own
            else "overrides_download_artifacts is True, but the plugin does not override download_artifacts"
        )

    def test_log_artifact_stores_the_bytes_at_the_root(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Without `artifact_path` a file lands at the root under its own name."""
        content = bytes(range(256)) + b"\r\n\n"
        store(repository, tmp_path, {"data.bin": content})
        assert fetched(repository, "data.bin", tmp_path) == content, "log_artifact at the root changed the bytes"

    def test_log_artifact_stores_the_file_inside_artifact_path(
        self, repository: ArtifactRepository, tmp_path: Path
    ) -> None:
        """`artifact_path` names the folder, not the file."""
        store(repository, tmp_path, {"models/v1/model.pkl": b"weights"})
        assert listed(repository) == {"models/v1/model.pkl": 7}, (
            "log_artifact(file, artifact_path) must store artifact_path/<name of the file>"
        )

    def test_log_artifact_leaves_the_local_file_alone(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """The caller keeps the local file: it is read, not moved."""
        local = tmp_path / "kept.txt"
        local.write_bytes(b"kept")
        repository.log_artifact(str(local))
        assert local.is_file(), "log_artifact removed the local file"
        assert local.read_bytes() == b"kept", "log_artifact changed the local file"

    def test_log_artifact_replaces_an_older_file(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Logging a name again replaces the whole content, also by a shorter one."""
        store(repository, tmp_path / "old", {"a/file.txt": b"a long first version"})
        store(repository, tmp_path / "new", {"a/file.txt": b"second"})
        assert fetched(repository, "a/file.txt", tmp_path) == b"second", "logging a name again must replace the content"

    def test_empty_files_are_stored(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A file of zero bytes is a file (`__init__.py` of a model's code)."""
        store(repository, tmp_path, {"code/__init__.py": b""})
        assert listed(repository) == {"code/__init__.py": 0}, "an empty file must be stored and listed with size 0"
        assert fetched(repository, "code/__init__.py", tmp_path) == b"", "an empty file must come back empty"

    def test_log_artifacts_stores_a_tree(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """`log_artifacts` stores the folder's content, nested folders included, below the root."""
        repository.log_artifacts(str(write_tree(tmp_path / "tree", TREE)))
        assert listed(repository) == {name: len(content) for name, content in TREE.items()}, (
            "log_artifacts must store the whole tree, relative to the given folder"
        )

    def test_log_artifacts_stores_a_tree_inside_artifact_path(
        self, repository: ArtifactRepository, tmp_path: Path
    ) -> None:
        """With `artifact_path` the folder's content, not the folder itself, lands in it."""
        repository.log_artifacts(str(write_tree(tmp_path / "tree", TREE)), "deep/er")
        assert set(listed(repository)) == {f"deep/er/{name}" for name in TREE}, (
            "log_artifacts(folder, artifact_path) must store each file as artifact_path/<path inside the folder>"
        )

    def test_awkward_names_survive(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Spaces, percent signs, plus signs and non-ASCII letters come back as they were."""
        repository.log_artifacts(str(write_tree(tmp_path / "tree", AWKWARD)), "names")
        target = tmp_path / "target"
        target.mkdir()
        repository.download_artifacts("names", str(target))
        back = read_tree(target / "names")
        assert back == AWKWARD, f"names did not survive the round trip: {sorted(AWKWARD.items() ^ back.items())}"

    def test_large_files_survive(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A file of several parts comes back byte for byte."""
        content = random_bytes(self.large_file_size + 1)
        store(repository, tmp_path, {"large.bin": content})
        assert listed(repository) == {"large.bin": len(content)}, "the large file is listed with a wrong size"
        assert fetched(repository, "large.bin", tmp_path) == content, "the large file came back with other bytes"

    def test_download_of_a_folder_keeps_its_paths(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A folder lands in the destination under its own path, with nothing from beside it."""
        store(repository, tmp_path / "in", TREE)
        target = tmp_path / "target"
        target.mkdir()
        path = repository.download_artifacts("a/b", str(target))
        assert Path(path) == target / "a" / "b", "download_artifacts must return destination/<artifact path>"
        assert read_tree(target) == {k: v for k, v in TREE.items() if k.startswith("a/b/")}, (
            "downloading a folder must bring exactly the files below it, under their full paths"
        )

    def test_download_of_the_root_brings_everything(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """The empty path is the root."""
        store(repository, tmp_path / "in", TREE)
        target = tmp_path / "target"
        target.mkdir()
        repository.download_artifacts("", str(target))
        assert read_tree(target) == TREE, "download_artifacts('') must bring the whole root"

    def test_download_without_destination_makes_one(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Without `dst_path` the file lands in a new local folder."""
        store(repository, tmp_path, {"a/file.txt": b"content"})
        path = Path(repository.download_artifacts("a/file.txt"))
        assert path.is_file(), "download_artifacts without dst_path must return the path of a local file"
        assert path.read_bytes() == b"content", "download_artifacts without dst_path returned other bytes"

    def test_missing_artifact_is_reported_as_missing(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A missing artifact is RESOURCE_DOES_NOT_EXIST, which MLflow's server answers with 404."""
        store(repository, tmp_path, {"there.txt": b""})
        local = tmp_path / "local.txt"
        result = outcome(lambda: repository._download_file("missing.txt", str(local)))
        assert result == "RESOURCE_DOES_NOT_EXIST", (
            f"downloading a missing artifact: {result}; raise MlflowException with RESOURCE_DOES_NOT_EXIST"
        )

    def test_missing_artifact_leaves_no_file_behind(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """A failed download leaves nothing in the destination that could pass for the artifact."""
        target = tmp_path / "target"
        target.mkdir()
        result = outcome(lambda: repository.download_artifacts("a/missing.txt", str(target)))
        assert result != "accepted", "downloading a missing artifact passes without an error"
        assert not read_tree(target), f"a failed download left files behind: {sorted(read_tree(target))}"

    def test_missing_local_file_is_reported(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Logging a local file that is not there is an error which names it."""
        _refuses_to_read(lambda: repository.log_artifact(str(tmp_path / "absent.txt")), "absent.txt", "log_artifact")
        assert not listed(repository), "logging a missing local file stored something"

    def test_missing_local_folder_is_reported(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Logging a local folder that is not there is an error which names it (`os.walk` would pass over it)."""
        _refuses_to_read(lambda: repository.log_artifacts(str(tmp_path / "absent")), "absent", "log_artifacts")

    def test_interrupted_download_is_never_taken_for_the_file(
        self, repository: ArtifactRepository, tmp_path: Path
    ) -> None:
        """A download that breaks raises, and nothing stands under the artifact's name."""
        self._breaks_cleanly(repository, tmp_path, "interrupted", self.interrupted_downloads(repository))

    def test_corrupted_download_is_never_taken_for_the_file(
        self, repository: ArtifactRepository, tmp_path: Path
    ) -> None:
        """Where the backend knows a checksum, bytes changed on their way raise, and no file appears."""
        self._breaks_cleanly(repository, tmp_path, "corrupted", self.corrupted_downloads(repository))

    def _breaks_cleanly(self, repository: ArtifactRepository, tmp_path: Path, kind: str, fault: Any) -> None:
        if fault is None:
            pytest.skip(f"the plugin's tests define no hook {kind}_downloads")
        store(repository, tmp_path, {"large.bin": random_bytes(self.large_file_size)})
        target = tmp_path / "target"
        target.mkdir()
        with fault:
            result = outcome(lambda: repository.download_artifacts("large.bin", str(target)))
        assert result != "accepted", f"a download that was {kind} passes without an error"
        assert not (target / "large.bin").exists(), f"a download that was {kind} stands under the artifact's final name"

    def test_concurrent_writers_lose_nothing(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Eight threads that log different files into one new folder, through one repository, lose none."""
        files = {f"shared/part-{n}.txt": str(n).encode() for n in range(32)}
        barrier = threading.Barrier(8, timeout=60)

        def write(worker: int) -> None:
            mine = dict(list(files.items())[worker::8])
            barrier.wait()
            store(repository, tmp_path / f"worker-{worker}", mine)

        with ThreadPoolExecutor(8) as pool:
            errors = [repr(f.exception()) for f in [pool.submit(write, n) for n in range(8)] if f.exception()]
        assert not errors, f"concurrent writers of different files failed: {errors[:3]}"
        lost = sorted(files.keys() - listed(repository).keys())
        assert not lost, f"concurrent writers of different files lost {lost}"


def _refuses_to_read(call: Any, name: str, operation: str) -> None:
    from mlflow.exceptions import MlflowException

    error: Exception | None = None
    try:
        call()
    except Exception as exc:  # noqa: BLE001 # its kind is what the rule judges
        error = exc
    assert error is not None, f"{operation} of a missing path passes without an error"
    assert isinstance(error, (MlflowException, OSError)), (
        f"{operation} of a missing path raises {error!r}; raise an OSError or MlflowException that names it"
    )
    assert name in str(error), f"{operation} of a missing path: the error does not name it: {error}"


_watched: threading.local = threading.local()
_installed = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    events: list[str] | None = getattr(_watched, "events", None)
    if events is None:
        return
    if event in _IO_EVENTS:
        events.append(_IO_EVENTS[event])
    elif event == "open" and any(letter in str(args[1] or "") for letter in "wax+"):
        events.append(f"writes {args[0]!r}")


@contextmanager
def _recorded_io() -> Iterator[list[str]]:
    """What this thread does to the outside world, seen through Python's audit events."""
    global _installed
    if not _installed:
        sys.addaudithook(_audit)
        _installed = True
    _watched.events = []
    try:
        yield _watched.events
    finally:
        _watched.events = None
