"""Where a deployment's API key comes from."""

from __future__ import annotations

import warnings

from pydantic import SecretStr

from mlflow_local_deploy.config import Config
from mlflow_local_deploy.settings import LocalSettings
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import STRICT_VARIABLE, InlineSecretWarning, is_strict

LOOPBACK = ("127.", "::1", "localhost")


def key_for(wanted: Config, settings: LocalSettings) -> str | None:
    """The key in clear, None where there is none: the configuration's, or the environment's.

    Warns where a key stands in the configuration, and where a deployment without one is open to the network;
    with MLFLOW_PLUGKIT_STRICT=true both are errors.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else None
    if wanted.api_key == "none":
        key = None
    elif isinstance(wanted.api_key, SecretStr):
        key = wanted.api_key.get_secret_value()
        _caution(
            "The API key stands in the configuration; on a command line everybody on this machine can read it. Set "
            "MLFLOW_LOCAL_DEPLOY_API_KEY_FILE (the path of a file that holds it) instead."
        )
    if key is None and not wanted.host.startswith(LOOPBACK):
        _caution(f"{wanted.host} can be reached from other machines, and no API key is asked for.")
    return key


def _caution(text: str) -> None:
    if is_strict():
        raise mlflow_error(f"{text} Refused because {STRICT_VARIABLE} is set.")
    warnings.warn(text, InlineSecretWarning, stacklevel=4)
