"""Settings: where the state is and which key is shown, from the target URI and the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class LocalSettings(Settings):
    """What a user sets once. The target URI is `local`, or `local:/path/of/the/state/folder`."""

    schemes = ("local",)

    folder: str = option(
        "~/.mlflow-local-deploy",
        in_uri=False,
        env="MLFLOW_LOCAL_DEPLOY_FOLDER",
        help="Folder of the deployments' state and models, on a local disk. The path of the target URI wins.",
    )
    env_manager: str = option(
        "auto",
        in_uri=False,
        env="MLFLOW_LOCAL_DEPLOY_ENV_MANAGER",
        help="Environment manager where a deployment's configuration names none: see `env_manager` below.",
    )
    api_key: SecretStr | None = option(
        None,
        in_uri=False,
        env="MLFLOW_LOCAL_DEPLOY_API_KEY",
        help="The API key that new deployments and endpoints ask of their callers, at least 16 characters.",
    )

    @classmethod
    def of_target(cls, target_uri: str) -> LocalSettings:
        """The settings of a client for `target_uri`.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a URI that is neither `local` nor `local:/folder`.
        """
        return cls.from_env() if target_uri == "local" else cls.from_uri(target_uri)

    @property
    def root(self) -> Path:
        """The state folder, absolute."""
        if self.uri and (self.uri.host or not self.uri.path.startswith("/")):
            raise mlflow_error(f"{self.uri} is no target: write 'local' or 'local:/path/of/the/state/folder'.")
        return Path(self.uri.path if self.uri else self.folder).expanduser().absolute()
