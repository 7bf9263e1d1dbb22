"""The files of a local folder, all of them checked before the first byte travels."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from mlflow_plugkit.artifacts.backend import Source, Upload
from mlflow_plugkit.artifacts.names import child_path, content_type
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger

logger = get_logger(__name__)


def folder_uploads(local_dir: str, artifact_path: str) -> Iterator[Upload]:
    """The files below a folder, with their artifact paths.

    A link to a file stands for the file, wherever that is, as in MLflow's own repositories: a model from the
    Hugging Face cache consists of such links. A link to a folder is left out, as there, with a warning.

    Args:
        local_dir: an existing folder.
        artifact_path: a clean path, `""` for the root.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a name that is no clean path, and for what is no readable file.
    """
    folders = [(local_dir, artifact_path)]
    while folders:
        folder, path = folders.pop()
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            below = child_path(path, entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, below))
            elif entry.is_symlink() and entry.is_dir():
                logger.warning("%r is a link to a folder and was left out: copy the folder there", entry.path)
            else:
                size = _size_of(entry)
                yield Upload(below, Source(file=entry.path, size=size), content_type(entry.name))


def check_readable(local_file: str) -> None:
    """Refuse what is no file that can be read.

    Raises:
        FileNotFoundError: it is not there.
        MlflowException: `INVALID_PARAMETER_VALUE`: it is a pipe, a device or a socket, or may not be read.
    """
    _check(local_file, os.stat(local_file))


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat()
    except FileNotFoundError:
        raise mlflow_error(f"{entry.path!r} is a link to nothing. Remove it, or mend it.") from None
    _check(entry.path, status)
    return status.st_size


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise mlflow_error(f"{path!r} is no regular file. Only files can be logged.")
    if not os.access(path, os.R_OK):
        raise mlflow_error(f"{path!r} may not be read by this user. Change its permissions, or leave it out.")
