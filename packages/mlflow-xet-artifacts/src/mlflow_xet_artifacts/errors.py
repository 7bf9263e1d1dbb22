"""The Hub's errors in MLflow's vocabulary, and which of them may pass."""

from __future__ import annotations

from mlflow_plugkit.errors import ErrorRow, ErrorTable

PASSING = frozenset({"408", "425", "429", "500", "502", "503", "504"})
CONFLICTS = frozenset({"409", "412"})
ACCESS_HINT = "Check the token (HF_TOKEN, or `hf auth login`): it must be valid and may write here."
NAME_HINT = (
    "Check the name, its type (repo_type=dataset for a dataset) and that the token may see it. "
    "To have it made at the first upload, set MLFLOW_XET_CREATE=true."
)
_PASSED_BY = "The request was repeated in vain. Try again later, or check the network."


def hub_code(exc: BaseException) -> str | None:
    """The Hub's own code (header X-Error-Code) of an HTTP error, or its status; None for any other error."""
    response = getattr(exc, "response", None)
    status = getattr(response, "status_code", None)
    if response is None or not isinstance(status, int):
        return None
    code = response.headers.get("X-Error-Code")
    if status == 401 and code != "GatedRepo":
        return "401"
    return code if code in _NAMED else str(status)


_NAMED = ("RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo")

XET_ERRORS = ErrorTable(
    "Hugging Face Hub",
    [
        ErrorRow("RepoNotFound", "RESOURCE_DOES_NOT_EXIST", NAME_HINT),
        ErrorRow(
            "RevisionNotFound",
            "RESOURCE_DOES_NOT_EXIST",
            "Check the branch, tag or commit. To have a branch made at the first upload, set MLFLOW_XET_CREATE=true.",
        ),
        ErrorRow("EntryNotFound", "RESOURCE_DOES_NOT_EXIST", "Check the path; list_artifacts shows what is there."),
        ErrorRow("GatedRepo", "PERMISSION_DENIED", "Ask for access on the repository's page on the Hub."),
        ErrorRow("400", "BAD_REQUEST", "The Hub's answer says what it does not accept."),
        ErrorRow("401", "UNAUTHENTICATED", ACCESS_HINT),
        ErrorRow("403", "PERMISSION_DENIED", ACCESS_HINT),
        ErrorRow("404", "RESOURCE_DOES_NOT_EXIST", NAME_HINT),
        ErrorRow("408", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("409", "RESOURCE_CONFLICT", "Others write to the same branch all the time. Give each writer its own."),
        ErrorRow("412", "RESOURCE_CONFLICT", "Others write to the same branch all the time. Give each writer its own."),
        ErrorRow("413", "RESOURCE_LIMIT_EXCEEDED", "Log fewer files at once."),
        ErrorRow("422", "BAD_REQUEST", "The Hub's answer says what it does not accept."),
        ErrorRow("425", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow(
            "429",
            "REQUEST_LIMIT_EXCEEDED",
            "The Hub limits requests and commits. Log folders rather than single files, or use a Storage Bucket.",
        ),
        ErrorRow("500", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("502", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("503", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("504", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("huggingface_hub.errors.HfHubHTTPError", "BAD_REQUEST", "The Hub refused the request."),
        ErrorRow(
            "huggingface_hub.errors.DisabledRepoError", "PERMISSION_DENIED", "Its author disabled the repository."
        ),
        ErrorRow("huggingface_hub.errors.BucketBatchError", "INTERNAL_ERROR", "The other files were stored."),
        ErrorRow("huggingface_hub.errors.HFValidationError", "INVALID_PARAMETER_VALUE", "Correct the name."),
        ErrorRow("huggingface_hub.errors.EntryNotFoundError", "RESOURCE_DOES_NOT_EXIST", "Check the path."),
        ErrorRow(
            "huggingface_hub.errors.OfflineModeIsEnabled",
            "TEMPORARILY_UNAVAILABLE",
            "Unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE): artifacts are not kept for use without the Hub.",
        ),
        ErrorRow("huggingface_hub.errors.LocalTokenNotFoundError", "UNAUTHENTICATED", ACCESS_HINT),
        ErrorRow("hf_xet.XetAuthenticationError", "PERMISSION_DENIED", ACCESS_HINT),
        ErrorRow("hf_xet.XetObjectNotFoundError", "DATA_LOSS", "The Xet storage has lost the file's content."),
        ErrorRow("mlflow_xet_artifacts.hub.XetTransferError", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("mlflow_plugkit.artifacts.retries.TransferError", "DATA_LOSS", _PASSED_BY),
        ErrorRow("httpx2.TimeoutException", "TEMPORARILY_UNAVAILABLE", "The Hub did not answer in MLFLOW_XET_TIMEOUT."),
        ErrorRow("httpx2.TransportError", "TEMPORARILY_UNAVAILABLE", _PASSED_BY),
        ErrorRow("builtins.PermissionError", "PERMISSION_DENIED", "Give this user access to the local file."),
        ErrorRow(
            "builtins.FileNotFoundError", "RESOURCE_DOES_NOT_EXIST", "A local file is gone. Keep it until it is logged."
        ),
    ],
    code_of=hub_code,
)
