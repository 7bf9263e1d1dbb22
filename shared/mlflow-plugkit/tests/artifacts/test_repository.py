"""The repository as MLflow sees it: construction, local input, mixins, secrets, forks, memory."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any

import pytest
from memory import (
    Denied,
    MemoryBackend,
    MemoryRepository,
    PresigningMemoryRepository,
    always,
)
from mlflow.entities.multipart_upload import MultipartUploadPart
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.repository import EngineArtifactRepository, PresigningArtifactRepository
from mlflow_plugkit.compat import artifact_mixins

SECRET = "secret-9Zq-value"


def test_base_import_stays_light() -> None:
    """The engine and what it needs are imported by those who use it."""
    code = (
        "import sys, mlflow_plugkit, mlflow_plugkit.uri; "
        "heavy = {'tenacity', 'psutil', 'fastcrc', 'platformdirs', 'mlflow', 'mlflow_plugkit.artifacts'}; "
        "wrong = heavy & set(sys.modules); "
        "assert not wrong, wrong"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["MultipartUploadMixin", "MultipartDownloadMixin", "PresignedUploadMixin"])
def test_only_presigning_repositories_claim_the_mixins(name: str) -> None:
    """MLflow's server asks `isinstance`."""
    mixin = artifact_mixins().get(name)
    if mixin is None:
        pytest.skip(f"this MLflow has no {name}")
    assert issubclass(PresigningArtifactRepository, mixin)
    assert not issubclass(EngineArtifactRepository, mixin)


def test_all_repositories_take_streams() -> None:
    mixin = artifact_mixins().get("StreamUploadMixin")
    if mixin is None:
        pytest.skip("this MLflow has no StreamUploadMixin")
    assert issubclass(EngineArtifactRepository, mixin)


def test_the_pool_of_downloads_is_as_large_as_the_backend_allows(repository: MemoryRepository) -> None:
    assert repository.max_workers == repository.backend.parallel_transfers
    assert repository.thread_pool._max_workers == repository.backend.parallel_transfers


# --- local input ----------------------------------------------------------------------------------


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("name", ["back\\slash.txt", "new\nline.txt", "%2e%2e", "C:"])
def test_bad_names_are_refused_before_the_first_byte(repository: MemoryRepository, tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.txt", f"deep/{name}", "z.txt")
    with pytest.raises(MlflowException) as caught:
        repository.log_artifacts(str(tmp_path))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert not repository.bucket.calls, "something was sent before all names were checked"


def test_a_name_that_is_no_text_is_refused(repository: MemoryRepository, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad-\xff.txt")).write_bytes(b"x")
    with pytest.raises(MlflowException, match="UTF-8"):
        repository.log_artifacts(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_pipe_is_refused_rather_than_waited_for(
    repository: MemoryRepository, tmp_path: Path, whole_folder: bool
) -> None:
    os.mkfifo(write(tmp_path, "a.txt") / "pipe")
    call = repository.log_artifacts if whole_folder else repository.log_artifact
    with pytest.raises(MlflowException, match="regular file"):
        call(str(tmp_path if whole_folder else tmp_path / "pipe"))
    assert not repository.bucket.calls


def test_a_file_that_may_not_be_read_is_refused(
    repository: MemoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.txt", "locked.txt")
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in path)
    with pytest.raises(MlflowException, match=r"locked\.txt"):
        repository.log_artifacts(str(tmp_path))
    assert not repository.bucket.calls


def test_links_to_files_are_followed_and_links_to_folders_left_out(
    repository: MemoryRepository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "outside/blob", "folder/a.txt")
    (tmp_path / "folder/link.bin").symlink_to(tmp_path / "outside/blob")
    (tmp_path / "folder/linked").symlink_to(tmp_path / "outside")
    repository.log_artifacts(str(tmp_path / "folder"))
    assert set(repository.bucket.objects) == {"root/a.txt", "root/link.bin"}
    assert repository.bucket.objects["root/link.bin"][0] == b"outside/blob"
    assert "linked" in caplog.text


def test_a_link_to_nothing_is_refused(repository: MemoryRepository, tmp_path: Path) -> None:
    (write(tmp_path, "a.txt") / "gone").symlink_to(tmp_path / "absent")
    with pytest.raises(MlflowException, match="gone"):
        repository.log_artifacts(str(tmp_path))
    assert not repository.bucket.calls


def test_files_and_folders_are_not_mixed_up(repository: MemoryRepository, tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    with pytest.raises(MlflowException, match="log_artifacts"):
        repository.log_artifact(str(tmp_path))
    with pytest.raises(MlflowException, match="no folder"):
        repository.log_artifacts(str(tmp_path / "a.txt"))


def test_an_empty_folder_uploads_nothing(repository: MemoryRepository, tmp_path: Path) -> None:
    repository.log_artifacts(str(tmp_path))
    assert not repository.bucket.calls


# --- presigned requests ---------------------------------------------------------------------------


@pytest.fixture
def presigning(uri: str) -> Any:
    return PresigningMemoryRepository(uri)


def test_a_client_uploads_parts_past_the_server(presigning: Any, uri: str) -> None:
    """The client names its own local file; only its last part matters."""
    upload = presigning.create_multipart_upload("/data/models/large.bin", 2, "models")
    assert [c.part_number for c in upload.credentials] == [1, 2]
    assert all(c.url.startswith("memory-part:root/models/large.bin?") for c in upload.credentials)
    backend: MemoryBackend = presigning._engine.backend
    backend.bucket.uploads[upload.upload_id][1].update({1: b"one", 2: b"two"})
    parts = [MultipartUploadPart(n, f"etag-{n}", None) for n in (2, 1)]
    presigning.complete_multipart_upload("C:\\me\\large.bin", upload.upload_id, parts, "models")
    assert backend.bucket.objects["root/models/large.bin"][0] == b"onetwo"


def test_an_upload_that_cannot_be_presigned_is_aborted(presigning: Any) -> None:
    bucket = presigning._engine.backend.bucket
    bucket.before = always("presign", Denied)
    with pytest.raises(MlflowException):
        presigning.create_multipart_upload("large.bin", 2)
    assert not bucket.uploads


@pytest.mark.parametrize("count", [0, 10_001])
def test_an_impossible_number_of_parts_is_refused(presigning: Any, count: int) -> None:
    with pytest.raises(MlflowException) as caught:
        presigning.create_multipart_upload("large.bin", count)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_an_aborted_upload_is_gone(presigning: Any) -> None:
    upload = presigning.create_multipart_upload("large.bin", 1)
    presigning.abort_multipart_upload("large.bin", upload.upload_id)
    presigning.abort_multipart_upload("large.bin", upload.upload_id)
    with pytest.raises(MlflowException) as caught:
        presigning.complete_multipart_upload("large.bin", upload.upload_id, [MultipartUploadPart(1, "x", None)])
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_presigned_urls(presigning: Any) -> None:
    if "PresignedUploadMixin" not in artifact_mixins():
        pytest.skip("this MLflow has no presigned URLs")
    presigning._engine.backend.publish("a/x.txt", b"12345", None)
    download = presigning.get_download_presigned_url("a/x.txt", expiration=60)
    assert (download.url, download.file_size) == ("memory-get:root/a/x.txt?60", 5)
    upload = presigning.create_presigned_upload_url("a/y.txt")
    assert (upload.presigned_url, upload.headers) == ("memory-put:root/a/y.txt?900", {"Content-Type": "text/plain"})
    with pytest.raises(MlflowException) as caught:
        presigning.get_download_presigned_url("a/missing.txt")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    for seconds in (0, 604_801):
        with pytest.raises(MlflowException) as caught:
            presigning.create_presigned_upload_url("a/y.txt", expiration=seconds)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


# --- secrets, forks, memory -----------------------------------------------------------------------


class LeakyBackend(MemoryBackend):
    """Its SDK shows the credential in each error."""

    def secrets(self) -> tuple[str, ...]:
        return (SECRET,)

    def refuse(self, *args: object) -> Any:
        raise Denied(f"AccessDenied for {SECRET}")

    head = list_page = put = create_multipart = delete_many = refuse


class LeakyRepository(MemoryRepository):
    backend_class = LeakyBackend


def test_no_error_shows_a_secret(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    repository = LeakyRepository(uri.replace("memory://", "memory://user:pass-9Zq@"))
    write(tmp_path, "small.txt")
    (tmp_path / "large.bin").write_bytes(bytes(200_000))
    calls = [
        lambda: repository.log_artifact(str(tmp_path / "small.txt")),
        lambda: repository.log_artifact(str(tmp_path / "large.bin")),
        lambda: repository.log_artifacts(str(tmp_path)),
        lambda: repository.log_artifact_from_stream(io.BytesIO(bytes(200_000)), "x"),
        repository.list_artifacts,
        repository.delete_artifacts,
        lambda: repository._download_file("x", str(tmp_path / "x")),
        lambda: repository.download_artifacts("x", str(tmp_path)),
    ]
    shown = [repr(repository), str(repository)]
    for call in calls:
        with pytest.raises(MlflowException) as caught:
            call()
        shown.append("".join(traceback.format_exception(caught.value)))
    assert SECRET not in "\n".join(shown) + caplog.text
    assert "pass-9Zq" not in "\n".join(shown) + caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_works_with_the_parents_repository(repository: MemoryRepository, tmp_path: Path) -> None:
    """PyTorch's data loaders fork: the child has none of the parent's threads, and must not use its connections."""
    closed = []
    repository.backend.close = lambda: closed.append(os.getpid())
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(300_000))
    repository.log_artifact(str(large))
    (tmp_path / "parent").mkdir()
    repository.download_artifacts("", str(tmp_path / "parent"))  # the pool's threads are running
    child = os.fork()
    if child == 0:
        code = 1
        try:
            (tmp_path / "child").mkdir()
            repository.download_artifacts("", str(tmp_path / "child"))
            repository.log_artifact(str(large), "again")
            same = (tmp_path / "child/large.bin").read_bytes() == large.read_bytes()
            code = 0 if same and closed == [os.getpid()] else 2
        finally:
            os._exit(code)
    timer = threading.Timer(30, os.kill, (child, 9))
    timer.start()
    try:
        _, status = os.waitpid(child, 0)
    finally:
        timer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0
    assert not closed, "the parent's connections were closed"


MEMORY = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from disk import DiskRepository
folder = sys.argv[2]
repository = DiskRepository(f"disk:{folder}/store")
repository.backend.part_size, repository.backend.multipart_threshold = 16 << 20, 32 << 20
repository.backend.parallel_transfers = 16
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
repository.log_artifact(f"{folder}/huge.bin")
os.makedirs(f"{folder}/target")
repository.download_artifacts("huge.bin", f"{folder}/target")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A backend that holds each part in memory, as this one does, stays within the budget for parts."""
    size = 256 << 20
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(size)
    answer = subprocess.run(
        [sys.executable, "-c", MEMORY, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) < 150, f"{answer.stdout} MiB for a file of {size >> 20} MiB"
    assert (tmp_path / "target/huge.bin").stat().st_size == size


# --- progress bars --------------------------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bars that tqdm is asked for, in place of those on the terminal."""
    made: list[Any] = []

    class Bar:
        def __init__(self, total: int, desc: str, **kwargs: Any) -> None:
            self.total, self.desc, self.n, self.closed = total, desc, 0, False
            made.append(self)

        def update(self, count: int) -> None:
            self.n += count

        def refresh(self) -> None: ...

        def close(self) -> None:
            self.closed = True

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    monkeypatch.setattr("mlflow.utils.file_utils._PROGRESS_BAR_DISPLAY_THRESHOLD", 200_000)
    return made


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_mlflows_progress_bar_counts_files_and_parts(
    repository: MemoryRepository, tmp_path: Path, bars: list[Any], monkeypatch: pytest.MonkeyPatch, enabled: str
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", enabled)
    write(tmp_path / "in", "a.txt", "b.txt")
    (tmp_path / "in/large.bin").write_bytes(os.urandom(300_000))
    repository.log_artifacts(str(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    repository.download_artifacts("", str(tmp_path / "out"))
    wanted = [
        ("Downloading artifacts", 3),
        ("Downloading large.bin", 300_000),
        ("Uploading artifacts", 3),
        ("Uploading large.bin", 300_000),
    ]
    assert sorted((bar.desc, bar.n) for bar in bars) == (wanted if enabled == "true" else [])
    assert all(bar.n == bar.total and bar.closed for bar in bars)
