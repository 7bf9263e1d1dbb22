"""Where a run came from, as tags. `mlflow.start_run` has them once this package is installed.

For code that makes its runs with `MlflowClient`, which asks no context provider, there is `resolve_tags`.
"""

from __future__ import annotations

from collections.abc import Mapping


def resolve_tags(tags: Mapping[str, str] | None = None, timeout: float | None = None) -> dict[str, str]:
    """The tags that `mlflow.start_run` would give a run that starts now: MLflow's own, all plugins', and `tags`.

    Args:
        tags: tags of the caller; they win over all others.
        timeout: seconds to wait for slow sources of this package (a huge repository, `nvidia-smi`);
            by default the option `deadline`.

    Example:
        >>> from mlflow import MlflowClient
        >>> MlflowClient().create_run("0", tags=resolve_tags({"team": "vision"}))  # doctest: +SKIP
    """
    from mlflow_run_context.public import resolve_tags as resolve

    return resolve(tags, timeout)


def log_git_diff(
    run_id: str | None = None, artifact_file: str = "context/git.diff", limit: int = 1_000_000, timeout: float = 30.0
) -> bool:
    """Log the uncommitted changes of the tracked files as a text artifact, with secrets scrubbed.

    Args:
        run_id: by default the active run's.
        artifact_file: path of the artifact.
        limit: bytes of the diff that are kept; a marker says where it was cut.
        timeout: seconds for git.

    Returns:
        Whether there was a diff to log.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`: there is no run to log it to; or what logging raises.
    """
    from mlflow_run_context.public import log_git_diff as log

    return log(run_id, artifact_file, limit, timeout)


__all__ = ["log_git_diff", "resolve_tags"]
