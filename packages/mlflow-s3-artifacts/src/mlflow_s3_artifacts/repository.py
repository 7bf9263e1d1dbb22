"""The artifact repository: the engine's, on an S3 backend."""

from __future__ import annotations

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.hosts import check_uri
from mlflow_plugkit.artifacts.repository import PresigningArtifactRepository
from mlflow_s3_artifacts.settings import PORTS, S3Settings


class S3PluginArtifactRepository(PresigningArtifactRepository):
    """MLflow's artifact repository for `s3+https:` and `s3+http:`, and for `s3:` where that was taken over."""

    def make_backend(self, artifact_uri: str) -> Backend:
        from mlflow_s3_artifacts.planes import choose_backend

        settings = S3Settings.from_uri(artifact_uri)
        if settings.location.scheme in PORTS:
            check_uri(artifact_uri, PORTS)
        return choose_backend(settings)
