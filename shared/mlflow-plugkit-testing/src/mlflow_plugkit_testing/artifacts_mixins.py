"""Rules for the optional mixins of an artifact repository: what it claims by `isinstance` must work."""

from __future__ import annotations

import asyncio
import inspect
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mlflow_plugkit.compat import artifact_mixins
from mlflow_plugkit_testing.artifacts_base import ArtifactSuite, fetched, listed, outcome, random_bytes, store
from mlflow_plugkit_testing.artifacts_safety import REFUSALS, hostile_paths

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

TIMEOUT = 60


class ArtifactMixinRules(ArtifactSuite):
    """MLflow's server asks `isinstance` for a mixin and then hands the feature to its clients."""

    def test_multipart_upload_assembles_the_parts(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Parts put to the given URLs become one file on completion, and nothing is listed before it."""
        repo = _claimed(repository, "MultipartUploadMixin")
        parts = [random_bytes(self.multipart_part_size), b"the last, short part"]
        upload = repo.create_multipart_upload("large.bin", len(parts), "uploads")
        assert len(upload.credentials) == len(parts), "create_multipart_upload must give one URL for each part"
        finished = [_put_part(credential, parts) for credential in upload.credentials]
        assert not listed(repository), "a multipart upload is listed before it is complete"
        repo.complete_multipart_upload("large.bin", upload.upload_id, finished, "uploads")
        assert fetched(repository, "uploads/large.bin", tmp_path) == b"".join(parts), (
            "the parts of a multipart upload did not become the file"
        )

    def test_aborted_multipart_upload_leaves_nothing(self, repository: ArtifactRepository) -> None:
        """After an abort nothing is listed, and the upload cannot be completed any more."""
        repo = _claimed(repository, "MultipartUploadMixin")
        upload = repo.create_multipart_upload("gone.bin", 1, "uploads")
        finished = [_put_part(upload.credentials[0], [b"x"])]
        repo.abort_multipart_upload("gone.bin", upload.upload_id, "uploads")
        late = outcome(lambda: repo.complete_multipart_upload("gone.bin", upload.upload_id, finished, "uploads"))
        assert late != "accepted", "an aborted multipart upload can still be completed"
        assert not listed(repository), "an aborted multipart upload left a file"

    def test_presigned_download_serves_the_bytes(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """The presigned URL serves the artifact, whole and by range, with the headers it names."""
        repo = _claimed(repository, "MultipartDownloadMixin")
        content = random_bytes(100_000)
        store(repository, tmp_path, {"a/file.bin": content})
        answer = repo.get_download_presigned_url("a/file.bin")
        whole = requests.get(answer.url, headers=dict(answer.headers or {}), timeout=TIMEOUT)
        assert whole.content == content, f"the presigned download URL does not serve the artifact ({whole.status_code})"
        assert answer.file_size in (None, len(content)), f"the presigned answer names a wrong size: {answer.file_size}"
        part = requests.get(answer.url, headers=dict(answer.headers or {}) | {"Range": "bytes=10-19"}, timeout=TIMEOUT)
        assert part.content == content[10:20], "the presigned download URL does not serve ranges, which MLflow asks for"
        assert hasattr(answer, "to_dict") or hasattr(answer, "to_proto"), (
            f"the answer must be MLflow's own entity, which its server serializes, not {type(answer).__name__}"
        )

    def test_presigned_upload_stores_the_bytes(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """What is put to the presigned URL, with the headers it names, is the artifact."""
        repo = _claimed(repository, "PresignedUploadMixin")
        content = random_bytes(100_000)
        answer = repo.create_presigned_upload_url("a/file.bin")
        response = requests.put(answer.presigned_url, data=content, headers=dict(answer.headers or {}), timeout=TIMEOUT)
        assert response.ok, f"the presigned upload URL refuses the upload: HTTP {response.status_code}"
        assert listed(repository) == {"a/file.bin": len(content)}, "the presigned upload did not become the artifact"
        assert fetched(repository, "a/file.bin", tmp_path) == content, "the presigned upload stored other bytes"

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_streamed_upload_stores_the_bytes(self, repository: ArtifactRepository, tmp_path: Path, kind: str) -> None:
        """A stream of several parts becomes the artifact, whatever the sizes of its chunks."""
        repo = _claimed(repository, "StreamUploadMixin")
        content = random_bytes(self.large_file_size)
        _stream(repo, kind, [content[:1], b"", content[1:70_000], content[70_000:]], "large.bin")
        assert listed(repository) == {"streams/large.bin": len(content)}, "the streamed upload is not listed as it is"
        assert fetched(repository, "streams/large.bin", tmp_path) == content, "the streamed upload stored other bytes"

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_broken_stream_leaves_nothing(self, repository: ArtifactRepository, kind: str) -> None:
        """A client that goes away in the middle leaves no artifact, and the error is raised."""
        repo = _claimed(repository, "StreamUploadMixin")
        result = outcome(lambda: _stream(repo, kind, [b"x" * 100_000, None], "broken.bin"))
        assert result != "accepted", "a stream that breaks passes as a complete upload"
        assert not listed(repository), "a stream that broke left an artifact behind"

    def test_mixins_refuse_hostile_paths(self, repository: ArtifactRepository, tmp_path: Path) -> None:
        """Each mixin refuses paths that lead out, as the plain methods do."""
        calls = _mixin_calls(repository)
        if not calls:
            pytest.skip("the repository offers none of MLflow's optional mixins")
        wrong = {}
        for name, call in calls.items():
            for path in hostile_paths(tmp_path):
                result = outcome(lambda call=call, path=path: call(path))  # type: ignore[misc] # bound per turn
                if result not in REFUSALS:
                    wrong[f"{name}({path!r})"] = result
        assert not wrong, f"mixins must refuse hostile paths with INVALID_PARAMETER_VALUE: {wrong}"


def _claimed(repository: ArtifactRepository, name: str) -> Any:
    mixin = artifact_mixins().get(name)
    if mixin is None:
        pytest.skip(f"this MLflow has no {name}")
    if not isinstance(repository, mixin):
        pytest.skip(f"the repository does not offer {name}")
    return repository


def _put_part(credential: Any, parts: list[bytes]) -> Any:
    from mlflow.entities.multipart_upload import MultipartUploadPart

    number = int(credential.part_number)
    body = parts[number - 1]
    response = requests.put(credential.url, data=body, headers=dict(credential.headers or {}), timeout=TIMEOUT)
    assert response.ok, f"the URL of part {number} refuses the upload: HTTP {response.status_code}"
    return MultipartUploadPart(part_number=number, etag=response.headers.get("ETag", ""), url=credential.url)


class _Source(io.RawIOBase):
    """A stream that yields the chunks one by one and breaks at None."""

    def __init__(self, chunks: list[bytes | None]) -> None:
        super().__init__()
        self._left = [chunk for chunk in chunks if chunk != b""]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            return 0
        chunk = self._left[0]
        if chunk is None:
            raise ConnectionResetError("the client went away")
        size = min(len(buffer), len(chunk))
        buffer[:size] = chunk[:size]
        self._left[0] = chunk[size:]
        if not self._left[0]:
            self._left.pop(0)
        return size


async def _chunks(chunks: list[bytes | None]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if chunk is None:
            raise ConnectionResetError("the client went away")
        yield chunk


def _stream(repo: Any, kind: str, chunks: list[Any], name: str, artifact_path: str = "streams") -> None:
    if kind == "sync":
        repo.log_artifact_from_stream(_Source(chunks), name, artifact_path)
        return
    coroutine = repo.log_artifact_from_async_stream(_chunks(chunks), name, artifact_path)
    assert inspect.isawaitable(coroutine), "log_artifact_from_async_stream must be `async def`"
    asyncio.run(coroutine)  # type: ignore[arg-type] # an awaitable made by `async def`


def _mixin_calls(repository: ArtifactRepository) -> dict[str, Callable[[str], Any]]:
    """Each claimed mixin's methods that take a path, ready to be called with one."""
    repo: Any = repository
    offered = {name for name, mixin in artifact_mixins().items() if isinstance(repository, mixin)}
    calls: dict[str, Callable[[str], Any]] = {}
    if "MultipartUploadMixin" in offered:
        calls["create_multipart_upload"] = lambda path: repo.create_multipart_upload("f.bin", 1, path)
    if "MultipartDownloadMixin" in offered:
        calls["get_download_presigned_url"] = repo.get_download_presigned_url
    if "PresignedUploadMixin" in offered:
        calls["create_presigned_upload_url"] = repo.create_presigned_upload_url
    if "StreamUploadMixin" in offered:
        calls["log_artifact_from_stream"] = lambda path: _stream(repo, "sync", [b"x"], "f.bin", path)
        calls["log_artifact_from_async_stream"] = lambda path: _stream(repo, "async", [b"x"], "f.bin", path)
    return calls
