"""The artifact repository."""

from __future__ import annotations

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.hosts import check_uri
from mlflow_plugkit.artifacts.repository import EngineArtifactRepository
from mlflow_plugkit.compat import server_artifact_locations
from mlflow_plugkit.errors import mlflow_error
from mlflow_sqlserver_artifacts.backend import SqlBackend
from mlflow_sqlserver_artifacts.settings import DatabaseSettings, read_settings

DEFAULT_PORTS = {
    "mssql": 1433,
    "mssql+pyodbc": 1433,
    "mssql+mssqlpython": 1433,
    "sql+postgresql": 5432,
    "sql+mariadb": 3306,
    "sql+mysql": 3306,
}


class SqlArtifactRepository(EngineArtifactRepository):
    """Artifacts in a SQL database: `mssql+pyodbc://host/database/root?driver=…`, `sql+postgresql://host/database/root`."""

    def make_backend(self, artifact_uri: str) -> Backend:
        settings = read_settings(artifact_uri)
        if settings.family == "sqlite":
            _check_file(settings)
        else:
            check_uri(artifact_uri, DEFAULT_PORTS)
        return SqlBackend(settings)


def _check_file(settings: DatabaseSettings) -> None:
    """Refuse, in an MLflow server, a file other than the one that its operator named: a client may name any.

    Raises:
        MlflowException: `PERMISSION_DENIED`.
    """
    locations = server_artifact_locations()
    if locations is None:
        return
    own = [location for location in locations if location.startswith("sql+sqlite:")]
    if settings.database not in [read_settings(location).database for location in own]:
        raise mlflow_error(
            f"This MLflow server does not open {settings.location}: a client named it, and it is not in the server's "
            "own artifact root or destination.",
            "PERMISSION_DENIED",
        )
