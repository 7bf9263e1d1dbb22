"""Which data plane a location gets."""

from __future__ import annotations

from importlib.util import find_spec

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.errors import mlflow_error
from mlflow_s3_artifacts.settings import PREFIX, S3Settings

# What obstore can say with each upload; the rest is boto3's.
_OBSTORE_ARGS = {"ServerSideEncryption", "SSEKMSKeyId"}


def choose_backend(settings: S3Settings) -> Backend:
    """The backend with the data plane that the settings ask for.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` where obstore is asked for and cannot do what else is
            asked for, `FEATURE_DISABLED` where it is not installed.
    """
    reason = _reason_against_obstore(settings)
    if settings.data_plane == "obstore" and reason:
        raise mlflow_error(f"{PREFIX}DATA_PLANE=obstore does not go together with {reason}. Use auto or boto3.")
    wanted = settings.data_plane == "obstore" or (settings.data_plane == "auto" and not reason)
    if wanted and (settings.data_plane == "obstore" or find_spec("obstore")):
        from mlflow_s3_artifacts.fast import ObstoreBackend

        return ObstoreBackend(settings)
    from mlflow_s3_artifacts.backend import S3Backend

    return S3Backend(settings)


def _reason_against_obstore(settings: S3Settings) -> str | None:
    if settings.expected_bucket_owner:
        return "an expected bucket owner"
    if beyond := sorted(settings.extra_args.keys() - _OBSTORE_ARGS):
        return f"the upload arguments {', '.join(beyond)}"
    if settings.upload_check == "md5":
        return f"{PREFIX}UPLOAD_CHECK=md5"
    return None
