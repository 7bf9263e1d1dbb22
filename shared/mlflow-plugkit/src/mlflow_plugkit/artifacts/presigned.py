"""MLflow's mixins for presigned requests, on a `PresigningBackend`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlflow.entities.multipart_upload import (
    CreateMultipartUploadResponse,
    MultipartUploadCredential,
    MultipartUploadPart,
)

from mlflow_plugkit.artifacts.backend import MultipartBackend, Part, PresigningBackend
from mlflow_plugkit.artifacts.engine import Engine
from mlflow_plugkit.artifacts.names import checked, content_type
from mlflow_plugkit.errors import mlflow_error, not_implemented
from mlflow_plugkit.uri import clean_path, join_path

PART_SECONDS = 6 * 3600
LONGEST_SECONDS = 7 * 24 * 3600


class PresigningMethods:
    """The methods of `MultipartUploadMixin`, `MultipartDownloadMixin` and `PresignedUploadMixin`."""

    if TYPE_CHECKING:
        _engine: Engine

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> CreateMultipartUploadResponse:
        backend, path = self._multipart(), place(local_file, artifact_path)
        if not 1 <= num_parts <= backend.max_parts:
            raise mlflow_error(f"An upload has 1 to {backend.max_parts} parts, not {num_parts}. Use larger parts.")
        with self._engine.applied(f"begin the upload of {path!r}"):
            upload_id = self._engine.call(backend.create_multipart, path, content_type(path), None)
            try:
                credentials = [self._credential(path, upload_id, number) for number in range(1, num_parts + 1)]
            except BaseException:
                backend.abort_multipart(path, upload_id)
                raise
        return CreateMultipartUploadResponse(upload_id=upload_id, credentials=credentials)

    def _credential(self, path: str, upload_id: str, number: int) -> MultipartUploadCredential:
        request = self._presigning().presign_part(path, upload_id, number, PART_SECONDS)
        return MultipartUploadCredential(url=request.url, part_number=number, headers=dict(request.headers))

    def complete_multipart_upload(
        self,
        local_file: str,
        upload_id: str,
        parts: list[MultipartUploadPart],
        artifact_path: str | None = None,
    ) -> None:
        backend, path = self._multipart(), place(local_file, artifact_path)
        arrived = sorted((Part(int(p.part_number), p.etag or "") for p in parts), key=lambda part: part.number)
        with self._engine.applied(f"complete the upload of {path!r}"):
            self._engine.call(backend.complete_multipart, path, upload_id, arrived)

    def abort_multipart_upload(self, local_file: str, upload_id: str, artifact_path: str | None = None) -> None:
        backend, path = self._multipart(), place(local_file, artifact_path)
        with self._engine.applied(f"abort the upload of {path!r}"):
            self._engine.call(backend.abort_multipart, path, upload_id)

    def get_download_presigned_url(self, artifact_path: str, expiration: int = 300) -> Any:
        from mlflow.entities.presigned_download import PresignedDownloadUrlResponse

        path = checked(artifact_path)
        with self._engine.applied(f"presign the download of {path!r}"):
            stored = self._engine.call(self._engine.backend.head, path)
            if stored is None:
                raise mlflow_error(f"There is no artifact {path!r}.", "RESOURCE_DOES_NOT_EXIST")
            request = self._presigning().presign_get(path, _lifetime(expiration))
        return PresignedDownloadUrlResponse(url=request.url, headers=dict(request.headers), file_size=stored.size)

    def create_presigned_upload_url(self, artifact_path: str, expiration: int = 900) -> Any:
        from mlflow.entities.presigned_upload import CreatePresignedUploadResponse

        path = checked(artifact_path)
        with self._engine.applied(f"presign the upload of {path!r}"):
            request = self._presigning().presign_put(path, _lifetime(expiration), content_type(path))
        return CreatePresignedUploadResponse(presigned_url=request.url, headers=dict(request.headers))

    def _presigning(self) -> PresigningBackend:
        backend = self._engine.backend
        if not isinstance(backend, PresigningBackend):
            raise not_implemented("A presigned request", f"{backend.errors.service} cannot presign")
        return backend

    def _multipart(self) -> MultipartBackend:
        backend = self._engine.backend
        if not isinstance(backend, MultipartBackend):
            raise not_implemented("A multipart upload", f"{backend.errors.service} takes files whole")
        return backend


def place(local_file: str, artifact_path: str | None) -> str:
    """The artifact path of a file, whose own folders (of either kind of slash) do not matter."""
    return checked(join_path(clean_path(artifact_path), re.split(r"[\\/]", local_file)[-1]))


def _lifetime(seconds: int) -> int:
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise mlflow_error(f"A presigned URL lives 1 to {LONGEST_SECONDS} seconds, not {seconds}.")
    return seconds
