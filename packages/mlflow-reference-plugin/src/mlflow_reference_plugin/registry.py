"""The model registry store: MLflow's own SQLite registry inside the folder that the URI names."""

from __future__ import annotations

from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from mlflow_plugkit.errors import without
from mlflow_reference_plugin.database import REASON, OpensOnFirstUse, prepare_database
from mlflow_reference_plugin.settings import FolderSettings


@without(REASON, "test_webhook")
class ReferenceRegistryStore(OpensOnFirstUse, SqlAlchemyStore):
    """Keeps registered models, versions and prompts in `<folder>/mlflow.db`, beside the runs.

    Args:
        store_uri: `file-plugin:<folder>`.
        tracking_uri: where the runs of the models are kept; MLflow passes it, this store needs it not.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`: the URI is malformed, or its folder is missing.
    """

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        OpensOnFirstUse.__init__(self)
        self._store_uri = store_uri
        self._settings = FolderSettings.of_store(store_uri)

    def __reduce__(self) -> tuple[type[ReferenceRegistryStore], tuple[str]]:
        return type(self), (self._store_uri,)

    def _open(self) -> None:
        SqlAlchemyStore.__init__(self, prepare_database(self._settings, None))
