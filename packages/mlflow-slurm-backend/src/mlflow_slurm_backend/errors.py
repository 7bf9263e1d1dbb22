"""The error table: what Slurm's commands and the file system say, and MLflow's error code for it."""

from __future__ import annotations

import errno

from mlflow_plugkit.errors import ErrorRow, ErrorTable

#: Slurm's message for an error number (`slurm_strerror`, src/common/slurm_errno.c), and the number's name.
MESSAGES = {
    "Invalid partition name specified": "ESLURM_INVALID_PARTITION_NAME",
    "Invalid account or account/partition combination specified": "ESLURM_INVALID_ACCOUNT",
    "Invalid qos specification": "ESLURM_INVALID_QOS",
    "Access/permission denied": "ESLURM_ACCESS_DENIED",
    "User's group not permitted to use this partition": "ESLURM_USER_ID_MISSING",
    "Requested node configuration is not available": "ESLURM_REQUESTED_NODE_CONFIG_UNAVAILABLE",
    "Memory required by task is not available": "ESLURM_INVALID_TASK_MEMORY",
    "Invalid feature specification": "ESLURM_INVALID_FEATURE",
    "Invalid generic resource (gres) specification": "ESLURM_INVALID_GRES",
    "Requested time limit is invalid": "ESLURM_INVALID_TIME_LIMIT",
    "Invalid job array specification": "ESLURM_INVALID_ARRAY",
    "Job dependency problem": "ESLURM_DEPENDENCY",
    "Invalid job id specified": "ESLURM_INVALID_JOB_ID",
    "Job violates accounting/QOS policy": "ESLURM_ACCOUNTING_POLICY",
    "Requested partition configuration not available now": "ESLURM_REQUESTED_PART_CONFIG_UNAVAILABLE",
    "Unable to contact slurm controller": "SLURM_COMMUNICATIONS_CONNECTION_ERROR",
    "Unable to connect to slurm controller": "SLURM_COMMUNICATIONS_CONNECTION_ERROR",
    "Socket timed out on send/recv operation": "SLURM_PROTOCOL_SOCKET_IMPL_TIMEOUT",
    "Zero Bytes were transmitted or received": "SLURM_PROTOCOL_SOCKET_ZERO_BYTES_SENT",
    "Slurm backup controller in standby mode": "ESLURM_IN_STANDBY_MODE",
    "Slurm temporarily unable to accept job": "ESLURM_ERROR_ON_DESC_TO_RECORD_COPY",
    "Unable to create job record, try again": "ESLURM_ERROR_ON_DESC_TO_RECORD_COPY",
    "Protocol authentication error": "SLURM_PROTOCOL_AUTHENTICATION_ERROR",
    "Slurm accounting storage is disabled": "ACCOUNTING_DISABLED",
    "Could not establish a configuration source": "NO_CONFIGURATION",
}
#: The controller did not take the request, or nobody knows whether it did: worth another try.
NO_ANSWER = frozenset({
    "SLURM_COMMUNICATIONS_CONNECTION_ERROR", "SLURM_PROTOCOL_SOCKET_IMPL_TIMEOUT", "COMMAND_TIMEOUT",
    "SLURM_PROTOCOL_SOCKET_ZERO_BYTES_SENT", "ESLURM_IN_STANDBY_MODE", "ESLURM_ERROR_ON_DESC_TO_RECORD_COPY",
})  # fmt: skip


class SlurmCommandError(Exception):
    """A Slurm command failed.

    Attributes:
        code: Slurm's name of the error, or COMMAND_MISSING, COMMAND_TIMEOUT, ACCOUNTING_DISABLED,
            NO_CONFIGURATION, or "" where the message is not in `MESSAGES`.
    """

    def __init__(self, command: str, message: str, code: str | None = None) -> None:
        super().__init__(f"{command}: {message}")
        found = (name for text, name in MESSAGES.items() if text.lower() in message.lower())
        self.code = next(found, "") if code is None else code


def _code_of(exc: BaseException) -> str | None:
    if isinstance(exc, SlurmCommandError):
        return exc.code
    return errno.errorcode.get(exc.errno or 0) if isinstance(exc, OSError) else None


_DOWN = "The controller (slurmctld) does not answer. Try again later; sinfo shows when it is back."
_FULL = "Free some space in the job folder (MLFLOW_SLURM_FOLDER), or choose another one."

SLURM_ERRORS = ErrorTable(
    "Slurm",
    [
        ErrorRow("ESLURM_INVALID_PARTITION_NAME", "INVALID_PARAMETER_VALUE", "sinfo lists the partitions."),
        ErrorRow("ESLURM_INVALID_ACCOUNT", "INVALID_PARAMETER_VALUE", "`sacctmgr show associations` lists yours."),
        ErrorRow("ESLURM_INVALID_QOS", "INVALID_PARAMETER_VALUE", "`sacctmgr show qos` lists them."),
        ErrorRow("ESLURM_ACCESS_DENIED", "PERMISSION_DENIED", "Ask the site's administrators for access."),
        ErrorRow("ESLURM_USER_ID_MISSING", "PERMISSION_DENIED", "Choose a partition that your group may use."),
        ErrorRow(
            "ESLURM_REQUESTED_NODE_CONFIG_UNAVAILABLE",
            "INVALID_PARAMETER_VALUE",
            "No node has so much: see sinfo -N -l.",
        ),
        ErrorRow(
            "ESLURM_INVALID_TASK_MEMORY", "INVALID_PARAMETER_VALUE", "No node has so much memory: see sinfo -N -l."
        ),
        ErrorRow("ESLURM_INVALID_FEATURE", "INVALID_PARAMETER_VALUE", "sinfo -o %f lists the features."),
        ErrorRow("ESLURM_INVALID_GRES", "INVALID_PARAMETER_VALUE", "sinfo -o %G lists the generic resources."),
        ErrorRow("ESLURM_INVALID_TIME_LIMIT", "INVALID_PARAMETER_VALUE", "sinfo -o %l shows the partitions' limits."),
        ErrorRow("ESLURM_INVALID_ARRAY", "INVALID_PARAMETER_VALUE", "`scontrol show config` shows MaxArraySize."),
        ErrorRow("ESLURM_DEPENDENCY", "INVALID_PARAMETER_VALUE", "Check the runs or jobs in afterok and afterany."),
        ErrorRow("ESLURM_INVALID_JOB_ID", "RESOURCE_DOES_NOT_EXIST", "Slurm forgets jobs some time after their end."),
        ErrorRow("ESLURM_ACCOUNTING_POLICY", "RESOURCE_EXHAUSTED", "Ask for less, or wait until your jobs have ended."),
        ErrorRow("ESLURM_REQUESTED_PART_CONFIG_UNAVAILABLE", "RESOURCE_EXHAUSTED", "Ask for less, or try again later."),
        ErrorRow("SLURM_COMMUNICATIONS_CONNECTION_ERROR", "TEMPORARILY_UNAVAILABLE", _DOWN),
        ErrorRow("SLURM_PROTOCOL_SOCKET_IMPL_TIMEOUT", "TEMPORARILY_UNAVAILABLE", _DOWN),
        ErrorRow("SLURM_PROTOCOL_SOCKET_ZERO_BYTES_SENT", "TEMPORARILY_UNAVAILABLE", _DOWN),
        ErrorRow("ESLURM_IN_STANDBY_MODE", "TEMPORARILY_UNAVAILABLE", _DOWN),
        ErrorRow("ESLURM_ERROR_ON_DESC_TO_RECORD_COPY", "TEMPORARILY_UNAVAILABLE", _DOWN),
        ErrorRow("COMMAND_TIMEOUT", "TEMPORARILY_UNAVAILABLE", _DOWN),
        ErrorRow(
            "SLURM_PROTOCOL_AUTHENTICATION_ERROR", "UNAUTHENTICATED", "munged must run here, with the site's key."
        ),
        ErrorRow("ACCOUNTING_DISABLED", "FEATURE_DISABLED", "The site keeps no accounting."),
        ErrorRow("NO_CONFIGURATION", "FEATURE_DISABLED", "Run this on a login node, or set SLURM_CONF."),
        ErrorRow("COMMAND_MISSING", "FEATURE_DISABLED", "Run this on a login node, with Slurm's commands on the PATH."),
        ErrorRow(
            "mlflow_slurm_backend.errors.SlurmCommandError",
            "INVALID_PARAMETER_VALUE",
            "Check the backend configuration.",
        ),
        ErrorRow("ENOSPC", "RESOURCE_EXHAUSTED", _FULL),
        ErrorRow("EDQUOT", "RESOURCE_EXHAUSTED", _FULL),
        ErrorRow("EFBIG", "RESOURCE_EXHAUSTED", _FULL),
        ErrorRow("EACCES", "PERMISSION_DENIED", "Give this user access to the job folder, or choose another one."),
        ErrorRow("EROFS", "PERMISSION_DENIED", "The job folder's file system is read-only: choose another one."),
        ErrorRow("ENOENT", "RESOURCE_DOES_NOT_EXIST", "Check the path."),
        ErrorRow("ENOTDIR", "INVALID_PARAMETER_VALUE", "A file stands where the path needs a folder."),
    ],
    code_of=_code_of,
)
