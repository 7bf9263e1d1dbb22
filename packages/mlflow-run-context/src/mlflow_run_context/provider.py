"""From sources to tags: what runs at each `mlflow.start_run`."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from typing import Any

from mlflow_plugkit.compat import optional_attribute
from mlflow_plugkit.logs import get_logger
from mlflow_run_context import jobs
from mlflow_run_context.collector import Found
from mlflow_run_context.settings import ContextSettings, current_settings
from mlflow_run_context.user_tags import user_templates
from mlflow_run_context.values import tag_key, tag_value

patience: ContextVar[float | None] = ContextVar("patience", default=None)
"""Seconds to wait for slow sources in this context, also for those that missed an earlier deadline."""

_run = threading.local()
_log = get_logger("mlflow_run_context")
_STANDARD = {
    "git.commit": "MLFLOW_GIT_COMMIT",
    "git.branch": "MLFLOW_GIT_BRANCH",
    "git.remote": "MLFLOW_GIT_REPO_URL",
    "git.dirty": "MLFLOW_GIT_DIRTY",
}
"""Our tag to the name that holds MLflow's in mlflow.utils.mlflow_tags; the last one is there since MLflow 3."""


def is_active(began: float) -> bool:
    """Whether there may be anything to say. Raises nothing.

    Args:
        began: when MLflow asked (`time.monotonic`): what loading this package took counts against the deadline.
    """
    _run.began = began
    try:
        settings = current_settings()
        return bool(settings.chosen or settings.tags or settings.tags_file)
    except Exception as exc:  # noqa: BLE001 # a provider that raises costs the user a warning at each run
        _log.debug("in_context: %s: %s", type(exc).__name__, exc)
        return False


def current_tags() -> dict[str, str]:
    """All tags, valid and scrubbed, for a run that starts now. Raises nothing."""
    try:
        settings = current_settings()
        return _tags(settings, collect(settings, settings.chosen, patience.get()))
    except Exception as exc:  # noqa: BLE001 # a provider that raises costs the user a warning at each run
        _log.debug("tags: %s: %s", type(exc).__name__, exc)
        return {}


def collect(settings: ContextSettings, chosen: frozenset[str], timeout: float | None = None) -> Found:
    """What the chosen sources say, by names without prefix.

    Args:
        settings: the options.
        chosen: names of sources.
        timeout: seconds to wait for the slow ones, also those that missed an earlier deadline; by default the
            option `deadline`, counted from MLflow's first question for this run, and nothing for those.
    """
    slow = jobs.slow(chosen, settings.refresh, with_diff=settings.git_diff)
    jobs.collector.start(slow)
    found = jobs.immediate(chosen)
    wait = _left(settings.deadline) if timeout is None else timeout
    answers = jobs.collector.collect(slow, wait, patient=timeout is not None)
    for job in slow:
        found |= answers.get(job.name, {})
    return found | jobs.git_head(chosen)


def _left(deadline: float) -> float:
    """What is left of the deadline since MLflow asked, but a quarter of it at least."""
    spent = time.monotonic() - getattr(_run, "began", 0.0)
    _run.began = 0.0
    return max(deadline - spent, deadline / 4) if spent < 1 else deadline


def _tags(settings: ContextSettings, found: Found) -> dict[str, str]:
    tags: dict[str, str] = {}
    for name, value in found.items():
        key = tag_key(f"{settings.prefix}.{name}")
        text = tag_value(value, lines=name == "git.diff")
        if key and text:
            tags[key] = text
    if settings.standard_git:
        tags |= _standard_git(found)
    for key, template in user_templates(settings).items():
        if text := tag_value(template.value(found)):
            tags[key] = text
        else:
            _log.debug("the tag %r has no value: a reference in it has none", key)
    return tags


def _standard_git(found: Found) -> Found:
    """MLflow's own git tags, as far as it has set none; nothing where it names another commit."""
    ours: Found = {}
    for name, constant in _STANDARD.items():
        key = optional_attribute("mlflow.utils.mlflow_tags", constant)
        if key and name in found:
            ours[str(key)] = tag_value(found[name])
    if not ours:
        return {}
    theirs = _set_by_mlflow()
    if any(key in ours and ours[key] != value and key.endswith(".commit") for key, value in theirs.items()):
        return {}
    return {key: value for key, value in ours.items() if value and key not in theirs}


def _set_by_mlflow() -> Found:
    """What MLflow's own providers say of git; they come before ours, and ours would win."""
    from mlflow.tracking.context.git_context import GitRunContext
    from mlflow.tracking.context.registry import _run_context_provider_registry as registry
    from mlflow.tracking.context.system_environment_context import SystemEnvironmentContext

    found: Found = {}
    providers: list[Any] = [p for p in registry if isinstance(p, (GitRunContext, SystemEnvironmentContext))]
    for provider in providers:  # no other one of MLflow's sets these tags
        if getattr(provider, "_cache", None) == {}:
            continue  # not asked for this run; asking would import GitPython, which waits for git without an end
        try:
            tags = provider.tags() if provider.in_context() else {}
        except Exception as exc:  # noqa: BLE001 # MLflow reports it when it asks itself
            _log.debug("%s: %s", type(provider).__name__, exc)
            continue
        found |= {key: str(value) for key, value in tags.items() if key.startswith("mlflow.source.git.")}
    return found
