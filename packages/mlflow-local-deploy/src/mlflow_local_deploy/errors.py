"""The error table: what a deployment answers and what the file system says, and MLflow's error code for it."""

from __future__ import annotations

import errno
from typing import Any

from mlflow_plugkit.errors import ErrorRow, ErrorTable


class AnswerError(Exception):
    """A deployment's answer that is an error.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _code_of(exc: BaseException) -> str | None:
    if isinstance(exc, AnswerError):
        return f"HTTP {exc.status}"
    if isinstance(exc, OSError) and type(exc).__module__ == "builtins" and exc.errno:
        return errno.errorcode.get(exc.errno)
    return None


_KEY = "Set MLFLOW_LOCAL_DEPLOY_API_KEY, or MLFLOW_LOCAL_DEPLOY_API_KEY_FILE, to the deployment's key."
_SPACE = "Free some space in the state folder (MLFLOW_LOCAL_DEPLOY_FOLDER), or choose another one."
_LOAD = "Look at `mlflow-local-deploy logs`, or raise the deployment's timeout_seconds."

DEPLOYMENT_ERRORS = ErrorTable(
    "Local deployment",
    [
        ErrorRow("HTTP 400", "BAD_REQUEST", "Compare the input with the model's signature."),
        ErrorRow("HTTP 401", "UNAUTHENTICATED", _KEY),
        ErrorRow("HTTP 404", "ENDPOINT_NOT_FOUND", "Compare the path with the README."),
        ErrorRow("HTTP 413", "INVALID_PARAMETER_VALUE", "Send less at once, or raise the deployment's max_body_bytes."),
        ErrorRow("HTTP 415", "INVALID_PARAMETER_VALUE", "Send JSON, CSV or Parquet."),
        ErrorRow("HTTP 500", "INTERNAL_ERROR", "Look at `mlflow-local-deploy logs`."),
        ErrorRow("HTTP 501", "NOT_IMPLEMENTED", "Only some models can do this."),
        ErrorRow("HTTP 502", "TEMPORARILY_UNAVAILABLE", "Look at the endpoint's deployments."),
        ErrorRow("HTTP 503", "TEMPORARILY_UNAVAILABLE", "Look at the endpoint's deployments and their weights."),
        ErrorRow("HTTP 504", "TEMPORARILY_UNAVAILABLE", _LOAD),
        ErrorRow("requests.exceptions.Timeout", "TEMPORARILY_UNAVAILABLE", _LOAD),
        ErrorRow(
            "requests.exceptions.ConnectionError", "TEMPORARILY_UNAVAILABLE", "Look at `mlflow-local-deploy logs`."
        ),
        ErrorRow("ENOSPC", "RESOURCE_EXHAUSTED", _SPACE),
        ErrorRow("EDQUOT", "RESOURCE_EXHAUSTED", _SPACE),
        ErrorRow("EMFILE", "RESOURCE_EXHAUSTED", "Raise the limit of open files (ulimit -n)."),
        ErrorRow("EAGAIN", "RESOURCE_EXHAUSTED", "Raise the limit of processes (ulimit -u)."),
        ErrorRow("EACCES", "PERMISSION_DENIED", "Give this user access to the state folder, or choose another one."),
        ErrorRow("EPERM", "PERMISSION_DENIED", "Give this user access to the state folder, or choose another one."),
        ErrorRow("EROFS", "PERMISSION_DENIED", "The file system is read-only: choose another state folder."),
        ErrorRow("ENOENT", "RESOURCE_DOES_NOT_EXIST", "Check the path."),
        ErrorRow("ENOTDIR", "INVALID_PARAMETER_VALUE", "A file stands where the state folder's path needs a folder."),
        ErrorRow("EEXIST", "INVALID_PARAMETER_VALUE", "A file stands where the state folder's path needs a folder."),
    ],
    code_of=_code_of,
)


def answer_error(status: int, body: Any) -> AnswerError:
    """The error in an answer: MLflow's `message`, or what there is."""
    text = body.get("message") or body.get("error") or body if isinstance(body, dict) else body
    return AnswerError(status, f"HTTP {status}: {str(text).strip()[:2000]}")
