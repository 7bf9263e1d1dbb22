"""The artifact repository: files under the folder that the URI names."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from mlflow_plugkit.compat import init_artifact_repository
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import clean_path, join_path, validate_path
from mlflow_reference_plugin.errors import FILE_ERRORS
from mlflow_reference_plugin.settings import FolderSettings

UNFINISHED = ".file-plugin-part"


class ReferenceArtifactRepository(ArtifactRepository):
    """Keeps artifacts as files. A file appears under its name only when all of it is written.

    Args:
        artifact_uri: `file-plugin:<folder>`; the folder is made by the first upload.
        tracking_uri, registry_uri: passed by MLflow since 3.1.1 and 3.5.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **_: Any
    ) -> None:
        init_artifact_repository(self, ArtifactRepository, artifact_uri, tracking_uri, registry_uri)
        self._root = FolderSettings.from_uri(artifact_uri).folder

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        source = Path(local_file)
        if source.is_dir():
            raise mlflow_error(f"{local_file!r} is a folder. Use log_artifacts for it.")
        target = self._locate(join_path(clean_path(artifact_path), validate_path(source.name)))
        with FILE_ERRORS.applied(f"store {source.name!r}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, target)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        if not Path(local_dir).is_dir():
            raise mlflow_error(f"{local_dir!r} is no folder that can be read. Give the folder whose files to store.")
        base = clean_path(artifact_path)
        files = [Path(folder, name) for folder, _, names in os.walk(local_dir) for name in sorted(names)]
        places = [validate_path(file.relative_to(local_dir).as_posix()) for file in files]
        for file, place in zip(files, places, strict=True):
            self.log_artifact(str(file), join_path(base, os.path.dirname(place)))

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        path = clean_path(path)
        folder = self._locate(path)
        if not folder.is_dir():
            return []
        with FILE_ERRORS.applied(f"list {path or 'the root'!r}"):
            entries = [e for e in os.scandir(folder) if not e.name.endswith(UNFINISHED)]
            return sorted((_info(e, join_path(path, e.name)) for e in entries), key=lambda info: info.path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        with FILE_ERRORS.applied(f"download {remote_file_path!r}"):
            _copy(self._locate(validate_path(remote_file_path)), Path(local_path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        target = self._locate(clean_path(artifact_path))
        with FILE_ERRORS.applied(f"delete {artifact_path or 'all artifacts'!r}"):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def _locate(self, path: str) -> Path:
        """The place of a clean path below the root; no link on the way may lead outside."""
        target = self._root / path
        if not target.resolve().is_relative_to(self._root.resolve()):
            raise mlflow_error(f"The artifact path {path!r} leads out of the artifact folder through a link.")
        return target


def _copy(source: Path, target: Path) -> None:
    draft = target.with_name(f".{uuid.uuid4().hex}{UNFINISHED}")
    try:
        shutil.copyfile(source, draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _info(entry: os.DirEntry[str], path: str) -> FileInfo:
    return FileInfo(path, entry.is_dir(), None if entry.is_dir() else entry.stat().st_size)
