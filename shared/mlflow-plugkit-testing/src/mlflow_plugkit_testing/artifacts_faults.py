"""Rules for an artifact repository whose connection to the real server is broken in every way that happens.

Each operation meets each fault that can strike it, once (it must then be completed, or end in a clear
error) and for good (it must then end in a clear error, in bounded time). In both cases nothing may be
lost, half-published or reported falsely; that is looked at directly on the server, past the fault.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest

from mlflow_plugkit_testing.artifacts_base import listed, random_bytes, read_tree, store, write_tree
from mlflow_plugkit_testing.faults import Fault, FaultProxy
from mlflow_plugkit_testing.suite import ConformanceSuite

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

REPORT_VARIABLE = "MLFLOW_PLUGKIT_FAULT_REPORT"
"""Names a file to which each case appends a line of JSON: suite, operation, fault, lasting, outcome, hits."""

REFUSALS = (
    Fault("drop"),
    Fault("status", status=500),
    Fault("status", status=503, retry_after=1),
    Fault("status", status=429, retry_after=1),
)
DELAY = Fault("delay", seconds=0.3)
LOST = Fault("lost-answer")
UPLOAD_FAULTS = (*REFUSALS, DELAY, LOST, Fault("cut-request"), Fault("corrupt-request"))
DOWNLOAD_FAULTS = (*REFUSALS, DELAY, Fault("cut-response"), Fault("corrupt-response"))
LIST_FAULTS = (*REFUSALS, DELAY, Fault("cut-response", least_body=64))
DELETE_FAULTS = (*REFUSALS, DELAY, LOST)

SMALL = 32 * 1024
FILES = 12


class ArtifactFaultConformance(ConformanceSuite):
    """Every rule about faults: override the fixtures `upstream`, `artifact_uri` and `faulty_uri`:

        class TestDemoFaults(ArtifactFaultConformance):
            @pytest.fixture
            def upstream(self, server):
                return "127.0.0.1", server.port

            @pytest.fixture
            def artifact_uri(self, server):
                return f"demo://127.0.0.1:{server.port}/{uuid4().hex}"

            @pytest.fixture
            def faulty_uri(self, artifact_uri, upstream, proxy):
                return artifact_uri.replace(f":{upstream[1]}/", f":{proxy.port}/")

    or `faulty`, the repository itself, where the server's address is no part of the URI. Let it give up
    soon (a second or two of retries), or the rules about lasting faults take long.
    """

    #: What the proxy understands: `http`, or `tcp` for a database's own protocol.
    fault_protocol: ClassVar[Literal["http", "tcp"]] = "http"
    #: Bytes of the "large" file: more than the backend sends in one piece.
    large_file_size: int = 6 * 1024 * 1024
    #: Seconds in which an operation must end, whatever the fault.
    fault_deadline: float = 60.0
    #: Faults that end an operation with an error even if they strike once.
    fatal_faults: frozenset[str] = frozenset()

    @pytest.fixture
    def upstream(self) -> tuple[str, int]:
        """Override it: host and port of the real server."""
        raise NotImplementedError("override the fixture upstream: host and port of the real server")

    @pytest.fixture
    def artifact_uri(self) -> str:
        """Override it: the URI of a fresh, empty root on the real server."""
        raise NotImplementedError("override the fixture artifact_uri: a fresh, empty root on the real server")

    @pytest.fixture
    def proxy(self, upstream: tuple[str, int]) -> Iterator[FaultProxy]:
        """The proxy in front of the real server."""
        with FaultProxy(*upstream, protocol=self.fault_protocol) as proxy:
            yield proxy

    @pytest.fixture
    def faulty_uri(self, proxy: FaultProxy) -> str:
        """Override it, or `faulty`: the same root, through the proxy."""
        raise NotImplementedError("override the fixture faulty_uri: the same root, through the proxy")

    @pytest.fixture
    def direct(self, artifact_uri: str) -> ArtifactRepository:
        """A repository that talks to the real server."""
        return self.make_repository(artifact_uri)

    @pytest.fixture
    def faulty(self, direct: ArtifactRepository, faulty_uri: str) -> ArtifactRepository:
        """A repository that talks through the proxy."""
        return self.make_repository(faulty_uri)

    def make_repository(self, uri: str) -> ArtifactRepository:
        """The repository for a URI; by default the one that MLflow's own registry makes."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository: ArtifactRepository = get_artifact_repository(uri)
        return repository

    @pytest.mark.parametrize("fault", UPLOAD_FAULTS, ids=str)
    @pytest.mark.parametrize("operation", ["small", "large", "folder", "replace", "stream"])
    def test_upload_meets_a_passing_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, operation: str, fault: Fault
    ) -> None:
        """One fault in an upload is mended by another attempt; if not, there is an error and no partial file."""
        upload = _Upload(operation, direct, faulty, tmp_path, self.large_file_size)
        self._meet(proxy, fault, f"upload {operation}", upload.act, upload.check)

    @pytest.mark.parametrize("fault", DOWNLOAD_FAULTS, ids=str)
    @pytest.mark.parametrize("operation", ["small", "large", "folder"])
    def test_download_meets_a_passing_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, operation: str, fault: Fault
    ) -> None:
        """One fault in a download is mended by another attempt; a damaged file never appears under its name."""
        download = _Download(operation, direct, faulty, tmp_path, self.large_file_size)
        self._meet(proxy, fault, f"download {operation}", download.act, download.check)

    @pytest.mark.parametrize("fault", LIST_FAULTS, ids=str)
    def test_listing_meets_a_passing_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, fault: Fault
    ) -> None:
        """A listing is whole or an error, never shorter than the truth."""
        listing = _Listing(direct, faulty, tmp_path)
        self._meet(proxy, fault, "list", listing.act, listing.check)

    @pytest.mark.parametrize("fault", DELETE_FAULTS, ids=str)
    @pytest.mark.parametrize("operation", ["file", "folder"])
    def test_deletion_meets_a_passing_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, operation: str, fault: Fault
    ) -> None:
        """A deletion that reports success has deleted all of it, and one that fails touched nothing else."""
        deletion = _Deletion(operation, direct, faulty, tmp_path)
        self._meet(proxy, fault, f"delete {operation}", deletion.act, deletion.check)

    @pytest.mark.parametrize("fault", [UPLOAD_FAULTS[0], UPLOAD_FAULTS[2], *UPLOAD_FAULTS[6:]], ids=str)
    @pytest.mark.parametrize("operation", ["large", "folder"])
    def test_upload_meets_a_lasting_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, operation: str, fault: Fault
    ) -> None:
        """An upload that cannot succeed ends in an MlflowException, and leaves no partial file."""
        upload = _Upload(operation, direct, faulty, tmp_path, self.large_file_size)
        self._meet(proxy, _lasting(fault), f"upload {operation}", upload.act, upload.check)

    @pytest.mark.parametrize("fault", [DOWNLOAD_FAULTS[0], DOWNLOAD_FAULTS[2], *DOWNLOAD_FAULTS[5:]], ids=str)
    @pytest.mark.parametrize("operation", ["large", "folder"])
    def test_download_meets_a_lasting_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, operation: str, fault: Fault
    ) -> None:
        """A download that cannot succeed ends in an MlflowException, and nothing stands under the file's name."""
        download = _Download(operation, direct, faulty, tmp_path, self.large_file_size)
        self._meet(proxy, _lasting(fault), f"download {operation}", download.act, download.check)

    @pytest.mark.parametrize("fault", [LIST_FAULTS[0], LIST_FAULTS[2]], ids=str)
    def test_listing_meets_a_lasting_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, fault: Fault
    ) -> None:
        """A listing that cannot succeed ends in an MlflowException, never in an empty list."""
        listing = _Listing(direct, faulty, tmp_path)
        self._meet(proxy, _lasting(fault), "list", listing.act, listing.check)

    @pytest.mark.parametrize("fault", [DELETE_FAULTS[0], DELETE_FAULTS[2]], ids=str)
    def test_deletion_meets_a_lasting_fault(
        self, direct: Any, faulty: Any, proxy: FaultProxy, tmp_path: Path, fault: Fault
    ) -> None:
        """A deletion that cannot succeed ends in an MlflowException."""
        deletion = _Deletion("folder", direct, faulty, tmp_path)
        self._meet(proxy, _lasting(fault), "delete folder", deletion.act, deletion.check)

    def _meet(
        self, proxy: FaultProxy, fault: Fault, operation: str, act: Callable[[], None], check: Callable[[bool], None]
    ) -> None:
        """Run the operation under the fault, judge how it ended, and look at what is there afterwards."""
        from mlflow.exceptions import MlflowException

        if self.fault_protocol == "tcp" and fault.kind in ("status", "corrupt-request", "corrupt-response"):
            pytest.skip("a proxy of plain TCP cannot answer for the server, and its damage is the protocol's matter")
        lasting, error = fault.times is None, None
        begun = time.monotonic()
        with proxy.inject(fault) as injected:
            try:
                act()
            except MlflowException as exc:
                error = exc
            except Exception as exc:
                raise AssertionError(
                    f"{operation} under {fault} ended in an error of another kind: {type(exc).__name__}"
                ) from exc
        took = time.monotonic() - begun
        _report(type(self).__name__, operation, fault, "completed" if error is None else "error", injected.hits)
        assert injected.hits, f"{fault} never struck {operation}: the repository does not use the proxy for it"
        assert took < self.fault_deadline, f"{operation} under {fault} took {took:.0f} s: bound its attempts in time"
        check(error is None)
        if lasting:
            assert error is not None, f"{operation} reports success although {fault} never ended"
        elif str(fault) not in self.fatal_faults and not fault.kind.startswith("corrupt") and "stream" not in operation:
            assert error is None, f"{operation} gives up after a single {fault}: try again ({error})"


class _Upload:
    """An upload, and what must stand on the server after it."""

    def __init__(self, operation: str, direct: Any, faulty: Any, folder: Path, large: int) -> None:
        self.operation, self.direct, self.faulty, self.folder = operation, direct, faulty, folder
        self.old: dict[str, bytes] = {}
        if operation == "folder":
            self.new = {f"up/part-{n}.bin": random_bytes(4096 + n) for n in range(FILES)}
        else:
            self.new = {"up/file.bin": random_bytes(large if operation == "large" else SMALL)}
        if operation == "replace":
            self.old = {"up/file.bin": random_bytes(SMALL // 2)}
            store(direct, folder / "old", self.old)
        if operation == "stream" and not hasattr(faulty, "log_artifact_from_stream"):
            pytest.skip("this MLflow or this plugin has no uploads from streams")

    def act(self) -> None:
        local = write_tree(self.folder / "new", self.new)
        if self.operation == "folder":
            self.faulty.log_artifacts(str(local / "up"), "up")
        elif self.operation == "stream":
            self.faulty.log_artifact_from_stream(io.BytesIO(self.new["up/file.bin"]), "file.bin", "up")
        else:
            self.faulty.log_artifact(str(local / "up" / "file.bin"), "up")

    def check(self, completed: bool) -> None:
        found = _content(self.direct, self.folder / "found")
        if completed:
            assert found == self.new, f"the upload reports success, but the server holds {_sizes(found)}"
            return
        for path, content in found.items():
            whole = content in (self.new.get(path), self.old.get(path))
            assert whole, f"a failed upload left a partial file: {path}, {len(content)} bytes"
        assert found.keys() >= self.old.keys(), "a failed upload lost the file that it was to replace"


class _Download:
    """A download, and what must stand in the local folder after it."""

    def __init__(self, operation: str, direct: Any, faulty: Any, folder: Path, large: int) -> None:
        self.faulty, self.target = faulty, folder / "target"
        sizes = (
            [4096 + n for n in range(FILES)] if operation == "folder" else [large if operation == "large" else SMALL]
        )
        self.files = {f"down/part-{n}.bin": random_bytes(size) for n, size in enumerate(sizes)}
        self.path = "down" if operation == "folder" else "down/part-0.bin"
        direct.log_artifacts(str(write_tree(folder / "stored", self.files) / "down"), "down")
        self.target.mkdir()

    def act(self) -> None:
        self.faulty.download_artifacts(self.path, str(self.target))

    def check(self, completed: bool) -> None:
        found = {p: c for p, c in read_tree(self.target).items() if p in self.files}
        for path, content in found.items():
            assert content == self.files[path], f"a damaged download stands under its name: {path}"
        assert not completed or found == self.files, f"the download reports success, but brought {_sizes(found)}"


class _Listing:
    """A listing, and the truth about it."""

    def __init__(self, direct: Any, faulty: Any, folder: Path) -> None:
        self.faulty = faulty
        self.files = {f"listed/part-{n}.bin": b"x" * n for n in range(FILES)}
        direct.log_artifacts(str(write_tree(folder / "stored", self.files) / "listed"), "listed")
        self.answer: dict[str, int | None] = {}

    def act(self) -> None:
        self.answer = {info.path: info.file_size for info in self.faulty.list_artifacts("listed")}

    def check(self, completed: bool) -> None:
        truth = {path: len(content) for path, content in self.files.items()}
        assert not completed or self.answer == truth, f"the listing reports success, but shows {self.answer}"


class _Deletion:
    """A deletion, and what must be left after it."""

    def __init__(self, operation: str, direct: Any, faulty: Any, folder: Path) -> None:
        self.direct, self.faulty = direct, faulty
        self.path = "gone" if operation == "folder" else "gone/part-0.bin"
        doomed = {f"gone/part-{n}.bin": b"x" for n in range(FILES if operation == "folder" else 1)}
        self.kept = {"gone-not/a.bin": b"y", "kept.bin": b"z"}
        direct.log_artifacts(str(write_tree(folder / "stored", doomed | self.kept)))

    def act(self) -> None:
        self.faulty.delete_artifacts(self.path)

    def check(self, completed: bool) -> None:
        found = set(listed(self.direct))
        assert found >= self.kept.keys(), f"the deletion took more than it was told to: {sorted(found)} are left"
        left = sorted(found - self.kept.keys())
        assert not completed or not left, f"the deletion reports success, but {left} are left"


def _lasting(fault: Fault) -> Fault:
    return Fault(fault.kind, fault.status, fault.retry_after, fault.seconds, None, fault.methods, fault.least_body)


def _content(repository: Any, folder: Path) -> dict[str, bytes]:
    """All that the server holds below the root, path to content."""
    found = {}
    for path in listed(repository):
        folder.mkdir(parents=True, exist_ok=True)
        found[path] = Path(repository.download_artifacts(path, str(folder))).read_bytes()
    return found


def _sizes(files: Mapping[str, bytes]) -> dict[str, int]:
    return {path: len(content) for path, content in files.items()}


def _report(suite: str, operation: str, fault: Fault, outcome: str, hits: int) -> None:
    """Append the case to the report that REPORT_VARIABLE asks for."""
    if name := os.environ.get(REPORT_VARIABLE):
        line = {"suite": suite, "operation": operation, "fault": str(fault), "lasting": fault.times is None}
        with open(name, "a", encoding="utf-8") as report:
            report.write(json.dumps(line | {"outcome": outcome, "hits": hits}) + "\n")
