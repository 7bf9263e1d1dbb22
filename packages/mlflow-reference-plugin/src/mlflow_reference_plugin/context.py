"""Run context and default experiment: both silent until their environment variable is set.

MLflow imports this module at `import mlflow`. So it imports neither its settings, which the first run
does, nor MLflow's base classes: MLflow asks for the methods only, and a module that imports MLflow while
MLflow is loading it would fail where it is imported first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

# What every MLflow accepts in a tag's name (mlflow.utils.validation), and the shortest limit of a value in any MLflow.
NAME = re.compile(r"[\w. -]{1,200}")
LONGEST_VALUE = 5000

if TYPE_CHECKING:
    from mlflow_reference_plugin.settings import ClientSettings


class ReferenceRunContextProvider:
    """Adds the tags of `MLFLOW_REFERENCE_TAGS` to each run, as `reference.<name>`, but none that MLflow refuses."""

    def in_context(self) -> bool:
        return bool(_settings().tags)

    def tags(self) -> dict[str, str]:
        from mlflow_plugkit.uri import redact_text

        pairs = (tag.partition("=") for tag in _settings().tags)
        named = {name.strip(): redact_text(value.strip()) for name, _, value in pairs}
        return {f"reference.{name}": value[:LONGEST_VALUE] for name, value in named.items() if NAME.fullmatch(name)}


class ReferenceDefaultExperimentProvider:
    """Sends runs that name no experiment to the one named by `MLFLOW_REFERENCE_EXPERIMENT`, made if missing."""

    def in_context(self) -> bool:
        return _settings().experiment is not None

    def get_experiment_id(self) -> str:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        from mlflow_plugkit.errors import mlflow_error

        name = _settings().experiment
        if name is None:
            raise mlflow_error("Set the environment variable MLFLOW_REFERENCE_EXPERIMENT to an experiment's name.")
        client = MlflowClient()
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name))
        except MlflowException as exc:
            # Another process made it in between.
            if exc.error_code == "RESOURCE_ALREADY_EXISTS" and (found := client.get_experiment_by_name(name)):
                return str(found.experiment_id)
            raise


def _settings() -> ClientSettings:
    from mlflow_reference_plugin.settings import ClientSettings

    return ClientSettings.from_env()
