"""The Hub's errors arrive in MLflow's vocabulary, with the way out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_plugkit_testing.server import plugin_env
from mlflow_xet_artifacts.errors import XET_ERRORS
from mlflow_xet_artifacts.hub import retry_after


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_XET_ATTEMPTS", "1")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def failure(call: Callable[[], object]) -> MlflowException:
    with pytest.raises(MlflowException) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (400, {}, "BAD_REQUEST"),
        (401, {}, "UNAUTHENTICATED"),
        (403, {}, "PERMISSION_DENIED"),
        (403, {"X_Error_Code": "GatedRepo"}, "PERMISSION_DENIED"),
        (403, {"X_Error_Message": "Access to this resource is disabled."}, "PERMISSION_DENIED"),
        (404, {"X_Error_Code": "RepoNotFound"}, "RESOURCE_DOES_NOT_EXIST"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "RESOURCE_DOES_NOT_EXIST"),
        (409, {}, "RESOURCE_CONFLICT"),
        (412, {}, "RESOURCE_CONFLICT"),
        (413, {}, "RESOURCE_LIMIT_EXCEEDED"),
        (418, {}, "BAD_REQUEST"),
        (422, {}, "BAD_REQUEST"),
        (429, {}, "REQUEST_LIMIT_EXCEEDED"),
        (500, {}, "TEMPORARILY_UNAVAILABLE"),
        (503, {}, "TEMPORARILY_UNAVAILABLE"),
    ],
)
def test_a_status_becomes_an_error_code(
    hub: FakeHub, repo_id: str, status: int, headers: dict[str, str], code: str
) -> None:
    hub.refuse(r"GET .*/tree/", status, times=10, **headers)
    error = failure(lambda: get_artifact_repository(f"xet://{repo_id}/main").list_artifacts())
    assert error.error_code == code
    assert str(error).startswith("Hugging Face Hub: could not list")
    assert error.__cause__ is not None


def test_a_hub_that_is_not_there_is_temporarily_unavailable(repo_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = failure(lambda: get_artifact_repository(f"xet://{repo_id}/main").list_artifacts())
    assert error.error_code == "TEMPORARILY_UNAVAILABLE"


def test_a_hub_that_does_not_answer_is_given_up_in_time(
    hub: FakeHub, repo_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """huggingface_hub itself would wait for ever."""
    monkeypatch.setenv("MLFLOW_XET_TIMEOUT", "0.3")
    file = tmp_path / "a.txt"
    file.write_text("a")
    with hub.state.lock:  # the Hub's threads wait for it
        error = failure(lambda: get_artifact_repository(f"xet://{repo_id}/main").log_artifact(str(file)))
    assert error.error_code == "TEMPORARILY_UNAVAILABLE"
    assert "MLFLOW_XET_TIMEOUT" in str(error)


def test_a_wrong_token_is_unauthenticated_and_not_shown(
    hub: FakeHub, repo_id: str, bucket_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "hf_" + "w" * 34
    monkeypatch.setenv("HF_TOKEN", wrong)
    for uri in (f"xet://{repo_id}/main", f"xet://buckets/{bucket_id}", f"xet://{repo_id}/main?create=true"):
        error = failure(lambda uri=uri: get_artifact_repository(uri).list_artifacts())
        assert error.error_code == "UNAUTHENTICATED"
        assert wrong not in str(error)


def test_offline_mode_says_what_to_unset(hub: FakeHub, repo_id: str, tmp_path: Path) -> None:
    """huggingface_hub reads HF_HUB_OFFLINE when it is imported, hence the process of its own."""
    code = (
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as get\n"
        f"get('xet://{repo_id}/main').list_artifacts()"
    )
    env = plugin_env(env={"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert "MlflowException" in done.stderr
    assert "Unset HF_HUB_OFFLINE" in done.stderr


def test_each_class_that_the_table_names_exists() -> None:
    """A name that the SDKs no longer have would silently match nothing."""
    from importlib import import_module

    for row in XET_ERRORS.rows:
        module, _, name = row.match.rpartition(".")
        if module:
            assert issubclass(getattr(import_module(module), name), BaseException), row.match


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"RateLimit": '"api";r=0;t=271'}, 271.0),
        ({"RateLimit": '"api";r=949;t=271'}, 0.0),
    ],
)
def test_the_wait_that_the_hub_asks_for_is_read(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_a_rate_limit_longer_than_the_patience_is_an_error_at_once(
    hub: FakeHub, repo_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_XET_ATTEMPTS", "5")
    file = tmp_path / "a.txt"
    file.write_text("a")
    refusal = hub.refuse(r"POST .*/commit/", 429, times=10, Retry_After="3600")
    error = failure(lambda: get_artifact_repository(f"xet://{repo_id}/main").log_artifact(str(file)))
    assert error.error_code == "REQUEST_LIMIT_EXCEEDED"
    assert "Storage Bucket" in str(error)
    assert refusal.left == 9
