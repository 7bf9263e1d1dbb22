"""The tracking store: MLflow's own SQLite store inside the folder that the URI names."""

from __future__ import annotations

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_reference_plugin.database import OpensOnFirstUse, artifact_root, prepare_database
from mlflow_reference_plugin.settings import FolderSettings


class ReferenceTrackingStore(OpensOnFirstUse, SqlAlchemyStore):
    """Keeps experiments, runs and traces in `<folder>/mlflow.db`. It needs no server.

    Args:
        store_uri: `file-plugin:<folder>`.
        artifact_uri: where the artifacts of new experiments go; `<folder>/artifacts` by default.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`: the URI is malformed, or its folder is missing.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        OpensOnFirstUse.__init__(self)
        self._folder = FolderSettings.from_uri(store_uri).store_folder
        self._artifact_uri = artifact_uri

    def _open(self) -> None:
        database_uri = prepare_database(self._folder, self._artifact_uri)
        SqlAlchemyStore.__init__(self, database_uri, artifact_root(self._folder, self._artifact_uri))
