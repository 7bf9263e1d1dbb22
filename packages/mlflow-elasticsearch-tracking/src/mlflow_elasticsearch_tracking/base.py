"""What the parts of the store stand on: the documents, the artifact root, the clock, the usual errors."""

from __future__ import annotations

import time

from mlflow_plugkit.compat import server_artifact_root
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings

#: Where artifacts go unless the store is told otherwise, as MLflow's SQL store has it.
DEFAULT_ARTIFACT_ROOT = "./mlartifacts"


class StoreBase:
    """Base of the store's parts; each of them is a mixin for one subject.

    Attributes:
        docs: the documents of this store's prefix, shared by all stores of the process.
        artifact_root_uri: the artifact root of new experiments.
    """

    docs: Documents
    settings: ElasticsearchSettings
    artifact_root_uri: str


def now_ms() -> int:
    """The clock in milliseconds since 1970, as MLflow stores times."""
    return time.time_ns() // 1_000_000


def missing(what: str, name: str) -> Exception:
    """The error for something that is not there."""
    return mlflow_error(f"No {what} with id {name!r} exists.", "RESOURCE_DOES_NOT_EXIST")


def artifact_root(given: str | None) -> str:
    """The artifact root: as given, else the running server's, else a folder beside the process."""
    return given or server_artifact_root() or DEFAULT_ARTIFACT_ROOT
