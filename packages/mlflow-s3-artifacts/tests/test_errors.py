"""The services' errors in MLflow's vocabulary, and which of them may pass."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as core
from botocore.parsers import ResponseParserError
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.server import free_port
from mlflow_s3_artifacts.errors import S3_ERRORS
from mlflow_s3_artifacts.objects import retry_delay
from mlflow_s3_artifacts.plugin import artifact_repository


def error(code: str, status: int = 400, **headers: str) -> core.ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return core.ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": metadata}, "GetObject")


def code_of(exc: Exception) -> str:
    with pytest.raises(MlflowException) as caught, S3_ERRORS.applied("work"):
        raise exc
    return str(caught.value.error_code)


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (error("NoSuchBucket", 404), "RESOURCE_DOES_NOT_EXIST"),
        (error("404", 404), "RESOURCE_DOES_NOT_EXIST"),
        (error("AccessDenied", 403), "PERMISSION_DENIED"),
        (error("SignatureDoesNotMatch", 403), "UNAUTHENTICATED"),
        (error("ExpiredToken", 400), "UNAUTHENTICATED"),
        (error("SomethingNew", 403), "PERMISSION_DENIED"),
        (error("SomethingNew", 503), "TEMPORARILY_UNAVAILABLE"),
        (error("BadDigest", 400), "DATA_LOSS"),
        (error("SlowDown", 503), "TEMPORARILY_UNAVAILABLE"),
        (error("PermanentRedirect", 301), "INVALID_PARAMETER_VALUE"),
        (core.NoCredentialsError(), "UNAUTHENTICATED"),
        (core.ProfileNotFound(profile="p"), "INVALID_PARAMETER_VALUE"),
        (core.EndpointConnectionError(endpoint_url="http://h"), "TEMPORARILY_UNAVAILABLE"),
        (core.ReadTimeoutError(endpoint_url="http://h"), "TEMPORARILY_UNAVAILABLE"),
        (core.SSLError(endpoint_url="http://h", error="e"), "INVALID_PARAMETER_VALUE"),
        (ResponseParserError("x"), "TEMPORARILY_UNAVAILABLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_gets_mlflows_code(exc: Exception, code: str) -> None:
    assert code_of(exc) == code


def test_an_error_that_nobody_knows_stays_visible() -> None:
    with pytest.raises(ZeroDivisionError), S3_ERRORS.applied("work"):
        raise ZeroDivisionError


def test_every_code_of_the_table_is_one_of_mlflows() -> None:
    from mlflow.protos.databricks_pb2 import ErrorCode

    assert {row.code for row in S3_ERRORS.rows} <= set(ErrorCode.keys())


@pytest.mark.parametrize(
    ("exc", "delay"),
    [
        (error("SlowDown", 503), 0.0),
        (error("SlowDown", 503, **{"retry-after": "7"}), 7.0),
        (error("Whatever", 429), 0.0),
        (error("BadDigest"), 0.0),
        (error("AccessDenied", 403), None),
        (error("NoSuchKey", 404), None),
        (core.EndpointConnectionError(endpoint_url="http://h"), 0.0),
        (core.SSLError(endpoint_url="http://h", error="e"), None),
        (core.NoCredentialsError(), None),
        (ValueError(), None),
    ],
)
def test_only_what_may_pass_is_tried_again(exc: Exception, delay: float | None) -> None:
    assert retry_delay(exc) == delay


def test_retry_after_may_be_a_date() -> None:
    later = formatdate(time.time() + 100, usegmt=True)
    delay = retry_delay(error("SlowDown", 503, **{"retry-after": later}))
    assert delay is not None
    assert 90 < delay <= 100


@pytest.mark.usefixtures("aws_environment", "data_plane")
class TestRealRefusals:
    """What a real server, or no server, leads to."""

    def raised(self, uri: str, path: Path) -> MlflowException:
        (path / "file.txt").write_text("x")
        with pytest.raises(MlflowException) as caught:
            artifact_repository(uri).log_artifact(str(path / "file.txt"))
        return caught.value

    def test_a_missing_bucket_is_named(self, weed: Any, tmp_path: Path) -> None:
        exc = self.raised(f"s3+http://127.0.0.1:{weed.port}/no-such-bucket", tmp_path)
        assert exc.error_code == "RESOURCE_DOES_NOT_EXIST"
        assert "Create the bucket" in str(exc)

    def test_a_wrong_secret_is_unauthenticated(
        self, fresh_uri: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
        exc = self.raised(fresh_uri(), tmp_path)
        assert exc.error_code == "UNAUTHENTICATED"
        assert "MLFLOW_S3_ARTIFACTS_PROFILES" in str(exc)

    def test_missing_credentials_are_unauthenticated(
        self, fresh_uri: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        assert self.raised(fresh_uri(), tmp_path).error_code == "UNAUTHENTICATED"

    def test_an_unknown_profile_is_named(self, fresh_uri: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_PROFILE", "nobody")
        exc = self.raised(fresh_uri(), tmp_path)
        assert exc.error_code == "INVALID_PARAMETER_VALUE"
        assert "nobody" in str(exc)

    def test_a_service_that_is_down_is_temporarily_unavailable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_RETRIES", "1")
        exc = self.raised(f"s3+http://127.0.0.1:{free_port()}/bucket", tmp_path)
        assert exc.error_code == "TEMPORARILY_UNAVAILABLE"
