"""The tracking store: MLflow's own SQLite store inside the folder that the URI names."""

from __future__ import annotations

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_plugkit.errors import without
from mlflow_reference_plugin.database import REASON, OpensOnFirstUse, artifact_root, prepare_database
from mlflow_reference_plugin.settings import FolderSettings


@without(
    REASON,
    "unlink_traces_from_run",
    "get_online_trace_details",
    "get_mcp_server_versions_for_trace",
    "link_mcp_server_versions_to_trace",
)
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
        self._settings = FolderSettings.of_store(store_uri)
        self._artifact_uri = artifact_uri

    def _open(self) -> None:
        database_uri = prepare_database(self._settings, self._artifact_uri)
        SqlAlchemyStore.__init__(self, database_uri, artifact_root(self._settings, self._artifact_uri))
