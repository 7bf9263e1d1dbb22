"""The error table: OSS's codes in MLflow's vocabulary, through each SDK as it really raises them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY_SECRET
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from oss_emulator import Emulator
from oss_emulator.server import Answer, Request
from oss_emulator.signing import Key, OssError

from mlflow_oss_artifacts.backend import OssBackend
from mlflow_oss_artifacts.errors import OSS_ERRORS, delay_of, problem_of
from mlflow_oss_artifacts.settings import OssSettings

URI = "oss://artifacts/errors"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OssBackend, "retry_wait", 0.01)
    monkeypatch.setattr(OssBackend, "retry_attempts", 3)


def raised(call: Any) -> MlflowException:
    with pytest.raises(MlflowException) as caught:
        call()
    return caught.value


def refusing(status: int, code: str, times: int = 10**6) -> Any:
    left = [times]

    def intercept(request: Request) -> Answer | None:
        left[0] -= 1
        if left[0] < 0:
            return None
        raise OssError(status, code, "as you wished")

    return intercept


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", "PERMISSION_DENIED"),
        (404, "NoSuchBucket", "RESOURCE_DOES_NOT_EXIST"),
        (403, "InvalidAccessKeyId", "UNAUTHENTICATED"),
        (403, "SignatureDoesNotMatch", "UNAUTHENTICATED"),
        (403, "SecurityTokenExpired", "UNAUTHENTICATED"),
        (403, "RequestTimeTooSkewed", "UNAUTHENTICATED"),
        (503, "QpsLimitExceeded", "REQUEST_LIMIT_EXCEEDED"),
        (503, "DownloadTrafficRateLimitExceeded", "REQUEST_LIMIT_EXCEEDED"),
        (503, "ServiceUnavailable", "TEMPORARILY_UNAVAILABLE"),
        (500, "InternalError", "TEMPORARILY_UNAVAILABLE"),
        (403, "UserDisable", "PERMISSION_DENIED"),
        (403, "InvalidObjectState", "INVALID_STATE"),
        (400, "SomethingNew", "BAD_REQUEST"),
        (418, "SomethingElse", "BAD_REQUEST"),
    ],
)
def test_codes_of_oss_become_those_of_mlflow(
    oss_env: Any, emulator: Emulator, status: int, code: str, expected: str
) -> None:
    """In listings, whose error answers have a body, and in HEAD, whose have none."""
    emulator.intercept = refusing(status, code)
    repository = get_artifact_repository(URI)
    listing = raised(repository.list_artifacts)
    assert (listing.error_code, code in str(listing)) == (expected, True)
    head = raised(lambda: repository._download_file("a.txt", "unused"))
    assert head.error_code == expected


def test_a_missing_object_is_not_found(oss_env: Any, tmp_path: Path) -> None:
    error = raised(lambda: get_artifact_repository(URI)._download_file("a.txt", str(tmp_path / "a.txt")))
    assert error.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_missing_bucket_is_named_as_such(oss_env: Any, tmp_path: Path) -> None:
    error = raised(lambda: get_artifact_repository("oss://missing/x")._download_file("a.txt", str(tmp_path / "a.txt")))
    assert (error.error_code, "NoSuchBucket" in str(error)) == ("RESOURCE_DOES_NOT_EXIST", True)


def test_a_wrong_secret_is_unauthenticated_and_not_shown(
    oss_env: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_OSS_KEY_SECRET", "quiteAnotherSecret")
    error = raised(get_artifact_repository(URI).list_artifacts)
    assert error.error_code == "UNAUTHENTICATED"
    assert "quiteAnotherSecret" not in str(error)
    assert KEY_SECRET not in str(error)


def test_a_wrong_region_is_unauthenticated(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSS_REGION", "cn-elsewhere")
    error = raised(get_artifact_repository(URI).list_artifacts)
    assert (error.error_code, "OSS_REGION" in str(error)) == ("UNAUTHENTICATED", True)


def test_no_credentials_say_what_to_set(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_OSS_KEY_ID", "MLFLOW_OSS_KEY_SECRET"):
        monkeypatch.delenv(name)
    error = raised(get_artifact_repository(URI).list_artifacts)
    assert (error.error_code, "MLFLOW_OSS_KEY_ID" in str(error)) == ("UNAUTHENTICATED", True)


def test_a_server_that_is_not_there_is_unavailable(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert raised(get_artifact_repository(URI).list_artifacts).error_code == "TEMPORARILY_UNAVAILABLE"


def test_a_server_that_does_not_answer_is_unavailable(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_OSS_READ_TIMEOUT", "0.1")
        assert raised(get_artifact_repository(URI).list_artifacts).error_code == "TEMPORARILY_UNAVAILABLE"


def test_a_redirect_is_not_followed(oss_env: Any, emulator: Emulator) -> None:
    """The request holds a signature and perhaps a token, which are for this endpoint only."""
    emulator.intercept = lambda _: Answer(307, {"Location": "http://127.0.0.1:1/elsewhere"})
    assert raised(get_artifact_repository(URI).list_artifacts).error_code == "INVALID_PARAMETER_VALUE"


def test_an_outage_that_passes_is_not_seen(oss_env: Any, emulator: Emulator) -> None:
    emulator.intercept = refusing(503, "ServiceUnavailable", times=2)
    assert get_artifact_repository(URI).list_artifacts() == []


def test_a_refusal_is_not_repeated(oss_env: Any, emulator: Emulator) -> None:
    emulator.denied.add("ListObjectsV2")
    raised(get_artifact_repository(URI).list_artifacts)
    assert emulator.counts["ListObjectsV2"] == 1


def test_retry_after_is_read_from_both_sdks(oss_env: Any, emulator: Emulator) -> None:
    emulator.intercept = lambda _: Answer(503, {"Retry-After": "7"})
    backend = OssBackend(OssSettings.from_uri(URI))
    with pytest.raises(Exception) as caught:  # each SDK has its own
        backend.list_page("", None)
    assert backend.retry_delay(caught.value) == 7.0


def test_an_expired_token_that_cannot_be_renewed_is_an_error(
    oss_env: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.keys["STS.old"] = Key("oldSecret1", "oldToken12", expires=1.0)
    for name, value in (("KEY_ID", "STS.old"), ("KEY_SECRET", "oldSecret1"), ("SESSION_TOKEN", "oldToken12")):
        monkeypatch.setenv(f"MLFLOW_OSS_{name}", value)
    error = raised(get_artifact_repository(URI).list_artifacts)
    assert (error.error_code, emulator.counts["ListObjectsV2"]) == ("UNAUTHENTICATED", 0)


def test_an_error_of_neither_sdk_passes_unchanged() -> None:
    assert OSS_ERRORS.row_for(KeyError("x")) is None
    assert delay_of(problem_of(KeyError("x"))) is None
