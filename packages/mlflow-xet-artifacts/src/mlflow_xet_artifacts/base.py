"""What both kinds of places on the Hub have in common as storage backends."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_plugkit.artifacts.backend import BulkBackend, FileBackend
from mlflow_xet_artifacts.content import Downloads
from mlflow_xet_artifacts.errors import XET_ERRORS
from mlflow_xet_artifacts.hub import Hub
from mlflow_xet_artifacts.location import BucketLocation, RepositoryLocation


class HubBackend(BulkBackend, FileBackend):
    """A folder on the Hub.

    Args:
        hub: the client.
        location: the folder; it names the backend's root.
    """

    errors = XET_ERRORS
    serial_reads = True

    def __init__(self, hub: Hub, location: BucketLocation | RepositoryLocation) -> None:
        hub.bound(self)
        self._hub, self._root = hub, str(location)
        self._downloads = Downloads(hub)

    @property
    def root(self) -> str:
        return self._root

    def secrets(self) -> Sequence[str]:
        return self._hub.secrets()

    def retry_delay(self, error: BaseException) -> float | None:
        return self._hub.retry_delay(error)

    def close(self) -> None:
        self._downloads.close()
