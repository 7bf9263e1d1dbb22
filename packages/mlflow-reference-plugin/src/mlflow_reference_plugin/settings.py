"""Settings: the folder that a `file-plugin:` URI names, and the environment of the client-side plugins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class FolderSettings(Settings):
    """A `file-plugin:` URI: `file-plugin:/srv/mlflow`, `file-plugin:///srv/mlflow` or `file-plugin:mlruns`."""

    schemes: ClassVar[tuple[str, ...]] = ("file-plugin",)

    create: bool = option(False, help="Make the store's folder where it is missing (its parent must be there).")

    @classmethod
    def of_store(cls, store_uri: str) -> FolderSettings:
        """Read a store's URI, and refuse at once a folder that is not there: see `store_folder`."""
        settings = cls.from_uri(store_uri)
        _ = settings.store_folder
        return settings

    @property
    def folder(self) -> Path:
        """The folder, absolute."""
        if self.uri is None or self.uri.host:
            raise mlflow_error(f"{self.uri} names a host. Write it as file-plugin:///folder or file-plugin:folder.")
        if not self.uri.path.strip("/"):
            raise mlflow_error("The URI names no folder. Write it as file-plugin:///folder or file-plugin:folder.")
        if "?" in self.uri.path:
            raise mlflow_error(f"The folder {self.uri.path!r} holds a '?', which no SQLite URI can. Rename it.")
        return Path(self.uri.path).absolute()

    @property
    def absolute_uri(self) -> str:
        """The folder as a URI that means the same from every working directory."""
        return self.folder.as_uri().replace("file:", "file-plugin:", 1)

    @property
    def store_folder(self) -> Path:
        """The folder, which must be there or, with `create=true`, can be made.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`: it is missing or is no folder.
        """
        folder = self.folder
        if folder.exists() and not folder.is_dir():  # in this order: another process may make it in between
            raise mlflow_error(f"{str(folder)!r} is a file. Name a folder in the URI.")
        if folder.is_dir() or (self.create and folder.parent.is_dir()):
            return folder
        parent = "" if folder.parent.is_dir() else f", and neither does {str(folder.parent)!r}"
        raise mlflow_error(
            f"The folder {str(folder)!r} does not exist{parent}. Make it with mkdir -p, or add ?create=true to the URI "
            "to have the last folder of the path made."
        )


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Settings):
    """What the providers read from the environment of a training script, and the server app from its own."""

    token: SecretStr | None = option(
        None, in_uri=False, env="MLFLOW_REFERENCE_TOKEN", help="Bearer token to send, or to ask for."
    )
    team: str | None = option(
        None, in_uri=False, env="MLFLOW_REFERENCE_TEAM", help="Sent as the header `X-Reference-Team`."
    )
    tags: tuple[str, ...] = option(
        (), in_uri=False, env="MLFLOW_REFERENCE_TAGS", help="Tags for each run, such as `ticket=ML-7,site=Berlin`."
    )
    experiment: str | None = option(
        None, in_uri=False, env="MLFLOW_REFERENCE_EXPERIMENT", help="Name of the experiment for runs that name none."
    )
    deployments: str = option(
        "mlflow-deployments",
        in_uri=False,
        env="MLFLOW_REFERENCE_DEPLOYMENTS",
        help="Folder of the deployment target's state.",
    )
