"""The error table of a local file system."""

from __future__ import annotations

import errno

from mlflow_plugkit.errors import ErrorRow, ErrorTable


def _errno_name(exc: BaseException) -> str | None:
    return errno.errorcode.get(exc.errno or 0) if isinstance(exc, OSError) else None


FILE_ERRORS = ErrorTable(
    "file-plugin",
    [
        ErrorRow("ENOENT", "RESOURCE_DOES_NOT_EXIST", "Check the path; list_artifacts shows what is there."),
        ErrorRow("ENOTDIR", "INVALID_PARAMETER_VALUE", "A file stands where the path needs a folder."),
        ErrorRow("EISDIR", "INVALID_PARAMETER_VALUE", "A folder stands where the path needs a file."),
        ErrorRow("EEXIST", "RESOURCE_ALREADY_EXISTS", "A file stands where the path needs a folder."),
        ErrorRow("ENAMETOOLONG", "INVALID_PARAMETER_VALUE", "Shorten the name."),
        ErrorRow("EACCES", "PERMISSION_DENIED", "Give this user access to the folder."),
        ErrorRow("EPERM", "PERMISSION_DENIED", "Give this user access to the folder."),
        ErrorRow("EROFS", "PERMISSION_DENIED", "The file system is mounted read-only."),
        ErrorRow("ENOSPC", "RESOURCE_EXHAUSTED", "The disk is full: free some space and try again."),
        ErrorRow("EDQUOT", "RESOURCE_EXHAUSTED", "The quota is used up: free some space and try again."),
    ],
    code_of=_errno_name,
)
