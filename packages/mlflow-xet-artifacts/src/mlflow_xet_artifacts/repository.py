"""The artifact repository: the engine's, on a Hub repository or a Storage Bucket."""

from __future__ import annotations

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.repository import EngineArtifactRepository
from mlflow_xet_artifacts.bucket import BucketBackend
from mlflow_xet_artifacts.hub import Hub
from mlflow_xet_artifacts.location import BucketLocation, location_of
from mlflow_xet_artifacts.repo import RepositoryBackend
from mlflow_xet_artifacts.settings import XetSettings


class XetArtifactRepository(EngineArtifactRepository):
    """Artifacts under `xet://user/repository/branch[/path]` or `xet://buckets/user/bucket[/path]`."""

    def make_backend(self, artifact_uri: str) -> Backend:
        settings = XetSettings.from_uri(artifact_uri)
        location = location_of(settings)
        if isinstance(location, BucketLocation):
            return BucketBackend(Hub(settings), location)
        return RepositoryBackend(Hub(settings), location)
