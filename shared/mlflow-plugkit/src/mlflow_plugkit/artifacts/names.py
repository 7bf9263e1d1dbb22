"""Names of artifacts: which are safe, which are listed, and their content types."""

from __future__ import annotations

import mimetypes
import re
from functools import lru_cache

from mlflow.exceptions import MlflowException

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import join_path, validate_path

_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_ ()=+,@~-]|\.(?!\.))*")
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:(?:/|$)")


def checked(path: str, what: str = "artifact path") -> str:
    """The path, if it is a clean one (`validate_path`) that names no Windows drive.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    if _DRIVE.search(path):
        raise mlflow_error(f"The {what} {path!r} names a drive. Give a relative path.")
    return validate_path(path, what)


def is_clean(path: str) -> bool:
    """Whether `checked` accepts the path."""
    if all(map(_PLAIN.fullmatch, path.split("/"))):
        return True
    try:
        checked(path)
    except MlflowException:
        return False
    return True


def child_path(folder: str, name: str) -> str:
    """The clean path of a file in a folder, or an error."""
    path = join_path(folder, name) if folder else name
    if not _PLAIN.fullmatch(name):
        checked(path)
    return path


@lru_cache(maxsize=4096)
def _by_extension(extension: str) -> str | None:
    return mimetypes.guess_type(f"x{extension}")[0]


def content_type(path: str) -> str | None:
    """The content type that `mimetypes` guesses from the name, as MLflow's S3 repository sets it; None if unknown."""
    name = path.rpartition("/")[2]
    if name.count(".") == 1:
        return _by_extension(name[name.index(".") :])
    return mimetypes.guess_type(name)[0]
