"""The default experiment: where runs go that name none."""

from __future__ import annotations

import threading
import time

from mlflow_plugkit.errors import mlflow_error
from mlflow_run_context.jobs import SOURCES
from mlflow_run_context.provider import collect
from mlflow_run_context.settings import current_settings, warn
from mlflow_run_context.template import Template, TemplateError, compile_template
from mlflow_run_context.values import scrub

TIMEOUT = 2.0
LONGEST_NAME = 250
_KEPT_SECONDS = 60.0
_VARIABLE = "MLFLOW_RUN_CONTEXT_EXPERIMENT"
_OTHER_NAMES = {
    "workflow": "ci",
    **dict.fromkeys(("slurm", "lsf", "pbs", "sagemaker", "ray", "kubernetes"), "scheduler"),
}

_known: dict[tuple[str, str], tuple[str, float]] = {}
_making = threading.Lock()


def is_configured() -> bool:
    """Whether there is a template that can be used. Looks nothing up."""
    return _template() is not None


def experiment_id() -> str:
    """The id of the experiment that the template names now, made where it is missing.

    An answer stands for a minute: each `start_run` asks.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`: no template, or one of its references has no value;
            `INVALID_STATE`: the experiment is deleted; or what the tracking store raises.
    """
    import mlflow

    name = experiment_name()
    place = (str(mlflow.get_tracking_uri()), name)
    with _making:
        found, since = _known.get(place, ("", 0.0))
        if not found or time.monotonic() - since > _KEPT_SECONDS:
            found = _found_or_made(name)
            _known[place] = (found, time.monotonic())
    return found


def experiment_name() -> str:
    """The template's value; errors as for `experiment_id`."""
    template = _template()
    if template is None:
        raise mlflow_error(f"Set {_VARIABLE} to an experiment's name or a template of it.")
    named = {field.partition(".")[0] for field in template.fields}
    wanted = frozenset(_OTHER_NAMES.get(name, name) for name in named) & set(SOURCES)
    name = scrub(template.value(collect(current_settings(), wanted, TIMEOUT)))[:LONGEST_NAME].strip()
    if not name:
        raise mlflow_error(
            f"{_VARIABLE} has no value here: one of {', '.join(template.fields) or 'its variables'} is missing. "
            "Give a default, as in {git.repository:-sandbox}."
        )
    return name


def _template() -> Template | None:
    text = current_settings().experiment
    if not text:
        return None
    try:
        return compile_template(text)
    except TemplateError as exc:
        warn(f"{_VARIABLE} is not used: {exc}.")
        return None


def _found_or_made(name: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as exc:
            found = client.get_experiment_by_name(name) if exc.error_code == "RESOURCE_ALREADY_EXISTS" else None
            if found is None:  # otherwise another process made it in between
                raise
    if found.lifecycle_stage != "active":
        raise mlflow_error(
            f"The experiment {name!r}, which {_VARIABLE} names, is deleted. Restore it with "
            f"'mlflow experiments restore -x {found.experiment_id}', or name another one.",
            "INVALID_STATE",
        )
    return str(found.experiment_id)
