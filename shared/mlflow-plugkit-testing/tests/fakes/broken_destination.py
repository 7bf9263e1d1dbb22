"""A destination with many faults at once, and a module that weakens the server it is loaded into."""

from __future__ import annotations

import mlflow.utils.uri
from folder_artifacts import FolderRepository
from mlflow.entities import FileInfo

from mlflow_plugkit.errors import mlflow_error

SECRET = "hunter2-printed"

# MLflow's server imports this function after the plugins are loaded.
mlflow.utils.uri.validate_path_is_safe = lambda path: path


class BrokenDestination(FolderRepository):
    def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **_):
        super().__init__(artifact_uri)
        print(f"connecting with token {SECRET}", flush=True)

    def local(self, path):
        return self.root / path if path else self.root

    def log_artifacts(self, local_dir, artifact_path=None):
        raise NotImplementedError

    def list_artifacts(self, path=None):
        return [FileInfo(info.path, info.is_dir, 1) for info in super().list_artifacts(path)]

    def _download_file(self, remote_file_path, local_path):
        source = self.local(remote_file_path)
        if not source.is_file():
            raise mlflow_error(f"{remote_file_path} was not found", "INTERNAL_ERROR")
        with open(local_path, "wb") as file:
            file.write(source.read_bytes()[::-1] or b"?")

    def delete_artifacts(self, artifact_path=None):
        pass
