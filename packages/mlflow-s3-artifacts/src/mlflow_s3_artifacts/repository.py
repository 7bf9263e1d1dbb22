"""The artifact repository: the engine's, on an S3 backend."""

from __future__ import annotations

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.hosts import check_uri
from mlflow_plugkit.artifacts.repository import PresigningArtifactRepository
from mlflow_s3_artifacts.settings import PORTS, S3Settings


class S3PluginArtifactRepository(PresigningArtifactRepository):
    """MLflow's artifact repository for `s3+https:` and `s3+http:`, and for `s3:` where that was taken over."""

    @property
    def max_workers(self) -> int:
        """The threads of MLflow's `download_artifacts`, each of which moves one file and mostly waits."""
        backend = self._engine.backend
        return int(getattr(backend, "small_at_once", backend.parallel_transfers))

    def make_backend(self, artifact_uri: str) -> Backend:
        from mlflow_s3_artifacts.planes import choose_backend

        settings = S3Settings.from_uri(artifact_uri)
        if settings.location.scheme in PORTS:
            check_uri(artifact_uri, PORTS)
        return choose_backend(settings)
