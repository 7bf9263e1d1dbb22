"""MLflow's artifact repository on top of a storage backend.

class DemoArtifactRepository(EngineArtifactRepository):
    def make_backend(self, artifact_uri):
        return DemoBackend(DemoSettings.from_uri(artifact_uri))
"""

from __future__ import annotations

import os
import posixpath
from abc import abstractmethod
from collections.abc import AsyncIterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from mlflow_plugkit.artifacts.backend import Backend, Source, Upload
from mlflow_plugkit.artifacts.destinations import Destinations
from mlflow_plugkit.artifacts.downloads import download
from mlflow_plugkit.artifacts.engine import Engine
from mlflow_plugkit.artifacts.journal import Journal
from mlflow_plugkit.artifacts.listing import Listed, delete_below, list_level
from mlflow_plugkit.artifacts.names import checked, content_type
from mlflow_plugkit.artifacts.pipes import consume_in_thread
from mlflow_plugkit.artifacts.presigned import PresigningMethods
from mlflow_plugkit.artifacts.progress import of_files
from mlflow_plugkit.artifacts.scanning import check_readable, folder_uploads
from mlflow_plugkit.artifacts.streams import upload_stream
from mlflow_plugkit.artifacts.uploads import upload_all
from mlflow_plugkit.collector import collector_paused
from mlflow_plugkit.compat import artifact_mixins, init_artifact_repository
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import clean_path, join_path

if TYPE_CHECKING:
    _Streaming = object
    _Presigning = object
else:
    _mixins = artifact_mixins()
    _stream = _mixins.pop("StreamUploadMixin", None)
    _Streaming = _stream or type("_Streaming", (), {})
    _Presigning = type("_Presigning", (*_mixins.values(),), {})


class EngineArtifactRepository(ArtifactRepository, _Streaming):
    """An artifact repository whose storage is a `Backend`.

    Args:
        artifact_uri: what `make_backend` reads; errors in it are raised at once.
        tracking_uri, registry_uri: passed by MLflow since 3.1.1 and 3.5.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **_: Any
    ) -> None:
        journal = Journal(f"{type(self).__module__}.{type(self).__qualname__}", artifact_uri)
        self._engine = Engine(self.make_backend(artifact_uri), journal, self.make_backend)
        self._listed, self._destinations = Listed(), Destinations()
        init_artifact_repository(self, ArtifactRepository, artifact_uri, tracking_uri, registry_uri)

    @abstractmethod
    def make_backend(self, artifact_uri: str) -> Backend:
        """Parse the URI and return the backend. Must not connect to anything."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(artifact_uri={self.artifact_uri!r})"

    @property
    def max_workers(self) -> int:
        return self._engine.backend.parallel_transfers

    @property
    def thread_pool(self) -> ThreadPoolExecutor:
        """The pool of MLflow's `download_artifacts`, made anew in a forked child."""
        if self._pool_of != os.getpid():
            self.thread_pool = self._create_thread_pool()  # type: ignore[no-untyped-call] # MLflow's
        return self._pool

    @thread_pool.setter
    def thread_pool(self, pool: ThreadPoolExecutor) -> None:
        self._pool: ThreadPoolExecutor = pool
        self._pool_of: int = os.getpid()

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        local_file = os.fspath(local_file)
        if os.path.isdir(local_file):
            raise mlflow_error(f"{local_file!r} is a folder. Use log_artifacts for it.")
        path = checked(join_path(clean_path(artifact_path), os.path.basename(local_file)))
        check_readable(local_file)
        upload_all(self._engine, [Upload(path, Source(file=local_file), content_type(path))])

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        local_dir = os.fspath(local_dir)
        if not os.path.isdir(local_dir):
            raise mlflow_error(f"{local_dir!r} is no folder that can be read. Give the folder whose files to store.")
        uploads = list(folder_uploads(local_dir, clean_path(artifact_path)))
        with of_files(len(uploads), "Uploading") as progress:
            upload_all(self._engine, uploads, lambda _: progress.add())

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        folder = clean_path(path)
        with self._engine.applied(f"list {folder or 'the root'!r}"):
            files, folders = list_level(self._engine, folder)
        with collector_paused():
            self._listed.remember(files)
            infos = [FileInfo(o.path, False, o.size) for o in files] + [FileInfo(f, True, None) for f in folders]
            return sorted(infos, key=lambda info: info.path)

    def _create_download_destination(self, src_artifact_path: str, dst_local_dir_path: str | None = None) -> str:
        ask = super()._create_download_destination  # type: ignore[misc] # untyped in MLflow
        return self._destinations.of(ask, src_artifact_path, dst_local_dir_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        path = checked(remote_file_path)
        with self._engine.applied(f"download {path!r}"):
            download(self._engine, path, os.fspath(local_path), self._listed.pop(path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        path = clean_path(artifact_path)
        with self._engine.applied(f"delete {path or 'all artifacts'!r}"):
            delete_below(self._engine, path)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        path = checked(join_path(clean_path(artifact_path), posixpath.basename(artifact_file_name)))
        upload_stream(self._engine, path, stream, content_type(path))

    async def log_artifact_from_async_stream(
        self, chunks: AsyncIterable[bytes], artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        path = checked(join_path(clean_path(artifact_path), posixpath.basename(artifact_file_name)))
        await consume_in_thread(lambda stream: upload_stream(self._engine, path, stream, content_type(path)), chunks)


class PresigningArtifactRepository(EngineArtifactRepository, PresigningMethods, _Presigning):
    """An artifact repository whose `PresigningBackend` lets clients transfer content past the server."""
