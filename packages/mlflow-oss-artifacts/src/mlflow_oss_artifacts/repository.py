"""The artifact repository: the shared transfer engine over an OSS bucket."""

from __future__ import annotations

from mlflow_oss_artifacts.backend import OssBackend
from mlflow_oss_artifacts.settings import OssSettings
from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.repository import PresigningArtifactRepository


class OssArtifactRepository(PresigningArtifactRepository):
    """Artifacts below `oss://bucket/path`, with all four of MLflow's optional mixins."""

    def make_backend(self, artifact_uri: str) -> Backend:
        return OssBackend(OssSettings.from_uri(artifact_uri))
