"""The functions for the user's own code; documented in the package's `__init__`."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_plugkit.errors import mlflow_error
from mlflow_run_context import git
from mlflow_run_context.commands import CommandError
from mlflow_run_context.provider import patience
from mlflow_run_context.values import MARKER, scrub


def resolve_tags(tags: Mapping[str, str] | None, timeout: float | None) -> dict[str, str]:
    """See `mlflow_run_context.resolve_tags`."""
    from mlflow.tracking.context.registry import resolve_tags as resolve

    token = patience.set(timeout)
    try:
        return dict(resolve(dict(tags or {})))
    finally:
        patience.reset(token)


def log_git_diff(run_id: str | None, artifact_file: str, limit: int, timeout: float) -> bool:
    """See `mlflow_run_context.log_git_diff`."""
    import mlflow

    if run_id is None:
        run = mlflow.active_run()
        if run is None:
            raise mlflow_error("There is no active run to log the diff to. Start one, or give run_id.")
        run_id = str(run.info.run_id)
    start = git.start_folder()
    repository = git.find_repository(start) if start else None
    if repository is None:
        return False
    try:
        text = git.diff_text(repository, limit + 1, timeout)
    except CommandError:
        return False
    if not text.strip():
        return False
    cut = len(text.encode()) > limit
    text = scrub(text[:limit]) + (f"\n{MARKER.strip()}\n" if cut else "")
    mlflow.MlflowClient().log_text(run_id, text, artifact_file)
    return True
