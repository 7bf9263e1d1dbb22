"""What the entry points name. MLflow imports this module at `import mlflow`: the standard library only.

The classes have no base: MLflow asks for the methods only, and a module that imports MLflow while MLflow
is loading it would fail where it is imported first.
"""

from __future__ import annotations

import os
import time


class RunContext:
    """The run context provider (group `mlflow.run_context_provider`). It raises nothing."""

    def in_context(self) -> bool:
        """Whether any source is switched on or any tag is configured."""
        began = time.monotonic()
        from mlflow_run_context.jobs import start_early

        start_early()
        from mlflow_run_context.provider import is_active

        return is_active(began)

    def tags(self) -> dict[str, str]:
        """The tags for a run that starts now."""
        from mlflow_run_context.provider import current_tags

        return current_tags()


class DefaultExperiment:
    """The default experiment provider (group `mlflow.default_experiment_provider`): an experiment by template."""

    def in_context(self) -> bool:
        """Whether MLFLOW_RUN_CONTEXT_EXPERIMENT is set."""
        if not os.environ.get("MLFLOW_RUN_CONTEXT_EXPERIMENT"):  # most often, and then nothing is loaded
            return False
        from mlflow_run_context.experiment import is_configured

        return is_configured()

    def get_experiment_id(self) -> str:
        """The experiment's id; the experiment is made where it is missing.

        Raises:
            MlflowException: the template has no value now, or the experiment cannot be had. MLflow logs it and
                goes on with its own default.
        """
        from mlflow_run_context.experiment import experiment_id

        return experiment_id()
