"""The error table: S3's codes, HTTP statuses and botocore's exceptions in MLflow's vocabulary.

Codes: Amazon S3 API reference, "Error responses"; MinIO and Ceph add some of their own.
"""

from __future__ import annotations

from mlflow_plugkit.errors import ErrorRow, ErrorTable

_CREDENTIALS = "Check the credentials: boto3's chain, or the profile that MLFLOW_S3_ARTIFACTS_PROFILES names."
_AGAIN = "The service is overloaded or restarting, and trying again did not help: try later."
_RIGHTS = "Ask the bucket's owner for the missing right (s3:GetObject, s3:PutObject, s3:ListBucket, s3:DeleteObject)."
_REGION = "Set the bucket's region: ?region=eu-central-1."
_CONNECTION = "Check the endpoint in the location, the network and the service."

_ROWS = [
    ErrorRow("NoSuchKey", "RESOURCE_DOES_NOT_EXIST", "Check the path; list_artifacts shows what is there."),
    ErrorRow("NoSuchVersion", "RESOURCE_DOES_NOT_EXIST", "Check the path; list_artifacts shows what is there."),
    ErrorRow("404", "RESOURCE_DOES_NOT_EXIST", "Check the bucket and the path."),
    ErrorRow("NoSuchBucket", "RESOURCE_DOES_NOT_EXIST", "Create the bucket, or correct its name in the location."),
    ErrorRow("NoSuchUpload", "RESOURCE_DOES_NOT_EXIST", "The upload was aborted or completed: begin it again."),
    ErrorRow("AccessDenied", "PERMISSION_DENIED", _RIGHTS),
    ErrorRow("AllAccessDisabled", "PERMISSION_DENIED", _RIGHTS),
    ErrorRow("403", "PERMISSION_DENIED", _RIGHTS),
    ErrorRow("KMS.AccessDeniedException", "PERMISSION_DENIED", "Ask for the right to use the KMS key."),
    ErrorRow("InvalidAccessKeyId", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("SignatureDoesNotMatch", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("ExpiredToken", "UNAUTHENTICATED", "The session token has expired: log in again."),
    ErrorRow("InvalidToken", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("401", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("RequestTimeTooSkewed", "UNAUTHENTICATED", "Set this machine's clock."),
    ErrorRow("AuthorizationHeaderMalformed", "INVALID_PARAMETER_VALUE", _REGION),
    ErrorRow("PermanentRedirect", "INVALID_PARAMETER_VALUE", _REGION),
    ErrorRow("301", "INVALID_PARAMETER_VALUE", _REGION),
    ErrorRow("InvalidBucketName", "INVALID_PARAMETER_VALUE", "Correct the bucket's name in the location."),
    ErrorRow("KeyTooLongError", "INVALID_PARAMETER_VALUE", "Shorten the path: a key has at most 1,024 bytes."),
    ErrorRow("EntityTooLarge", "INVALID_PARAMETER_VALUE", "Lower MLFLOW_S3_ARTIFACTS_MULTIPART_THRESHOLD."),
    ErrorRow("EntityTooSmall", "INVALID_PARAMETER_VALUE", "Parts have at least 5 MiB, but for the last."),
    ErrorRow("InvalidPart", "INVALID_PARAMETER_VALUE", "A part is missing or was changed: upload it again."),
    ErrorRow("InvalidPartOrder", "INVALID_PARAMETER_VALUE", "List the parts in the order of their numbers."),
    ErrorRow("InvalidArgument", "INVALID_PARAMETER_VALUE", "Check the options for uploads (SSE, ACL, storage class)."),
    ErrorRow("InvalidRequest", "INVALID_PARAMETER_VALUE", "Check the options for uploads (SSE, ACL, storage class)."),
    ErrorRow("InvalidStorageClass", "INVALID_PARAMETER_VALUE", "Choose a storage class that the service has."),
    ErrorRow("AccessControlListNotSupported", "INVALID_PARAMETER_VALUE", "The bucket takes no ACLs: unset the ACL."),
    ErrorRow("KMS.NotFoundException", "INVALID_PARAMETER_VALUE", "Check the id of the KMS key and its region."),
    ErrorRow("KMS.DisabledException", "INVALID_STATE", "Enable the KMS key."),
    ErrorRow("InvalidObjectState", "INVALID_STATE", "The object is archived: restore it first."),
    ErrorRow("PreconditionFailed", "RESOURCE_CONFLICT", "The artifact was replaced meanwhile: read it again."),
    ErrorRow("412", "RESOURCE_CONFLICT", "The artifact was replaced meanwhile: read it again."),
    ErrorRow("OperationAborted", "RESOURCE_CONFLICT", "Another operation on the bucket is under way: try again."),
    ErrorRow("BadDigest", "DATA_LOSS", "The content was damaged on its way, more than once: check the network."),
    ErrorRow("XAmzContentSHA256Mismatch", "DATA_LOSS", "The content was damaged on its way: check the network."),
    ErrorRow("XAmzContentChecksumMismatch", "DATA_LOSS", "The content was damaged on its way: check the network."),
    ErrorRow("SlowDown", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("ServiceUnavailable", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("InternalError", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("RequestTimeout", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("429", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("500", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("502", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("503", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("504", "TEMPORARILY_UNAVAILABLE", _AGAIN),
    ErrorRow("QuotaExceeded", "RESOURCE_EXHAUSTED", "The bucket's quota is used up: free some space."),
    ErrorRow("XMinioStorageFull", "RESOURCE_EXHAUSTED", "The service's disks are full."),
    ErrorRow("507", "RESOURCE_EXHAUSTED", "The service's disks are full."),
    ErrorRow("NotImplemented", "NOT_IMPLEMENTED", "The service lacks this: see MLFLOW_S3_ARTIFACTS_UPLOAD_CHECK."),
    ErrorRow("400", "BAD_REQUEST", "Check the location, the region, the clock and the token."),
    ErrorRow("botocore.exceptions.NoCredentialsError", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("botocore.exceptions.PartialCredentialsError", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("botocore.exceptions.CredentialRetrievalError", "UNAUTHENTICATED", _CREDENTIALS),
    ErrorRow("botocore.exceptions.TokenRetrievalError", "UNAUTHENTICATED", "Log in again: aws sso login."),
    ErrorRow("botocore.exceptions.SSOError", "UNAUTHENTICATED", "Log in again: aws sso login."),
    ErrorRow("botocore.exceptions.ProfileNotFound", "INVALID_PARAMETER_VALUE", "Add it to ~/.aws/config."),
    ErrorRow("botocore.exceptions.ConfigParseError", "INVALID_PARAMETER_VALUE", "Correct the AWS configuration file."),
    ErrorRow("botocore.exceptions.ParamValidationError", "INVALID_PARAMETER_VALUE", "Check the options for uploads."),
    ErrorRow("botocore.exceptions.InvalidRegionError", "INVALID_PARAMETER_VALUE", "Correct the region."),
    ErrorRow(
        "botocore.exceptions.SSLError",
        "INVALID_PARAMETER_VALUE",
        "For a CA of your own, set MLFLOW_S3_ARTIFACTS_CA_BUNDLE to its PEM file.",
    ),
    ErrorRow("botocore.exceptions.HTTPClientError", "TEMPORARILY_UNAVAILABLE", _CONNECTION),
    ErrorRow("botocore.exceptions.ConnectionError", "TEMPORARILY_UNAVAILABLE", _CONNECTION),
    ErrorRow("botocore.exceptions.IncompleteReadError", "TEMPORARILY_UNAVAILABLE", _CONNECTION),
    ErrorRow("botocore.parsers.ResponseParserError", "TEMPORARILY_UNAVAILABLE", _CONNECTION),
    ErrorRow("urllib3.exceptions.SSLError", "INVALID_PARAMETER_VALUE", "Set MLFLOW_S3_ARTIFACTS_CA_BUNDLE."),
    ErrorRow("urllib3.exceptions.HTTPError", "TEMPORARILY_UNAVAILABLE", _CONNECTION),
]  # fmt: skip
_CODES = {row.match for row in _ROWS}
# Codes that say: the same request may succeed later.
TRANSIENT = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "Throttling"}
TRANSIENT |= {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}
TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}


def _code(exc: BaseException) -> str | None:
    """S3's code in botocore's ClientError, or the HTTP status where the table has no such code."""
    response = getattr(exc, "response", None)
    if not isinstance(response, dict):
        return None
    code = str(response.get("Error", {}).get("Code", ""))
    return code if code in _CODES else str(status_of(exc) or code)


def status_of(exc: BaseException) -> int | None:
    """The HTTP status in botocore's ClientError, or None."""
    response = getattr(exc, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None


S3_ERRORS = ErrorTable("S3", _ROWS, code_of=_code)
