"""What a `xet:` URI and the environment mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import append_to_uri_path

from mlflow_plugkit.settings import InlineSecretWarning
from mlflow_xet_artifacts.location import BucketLocation, RepositoryLocation, location_of
from mlflow_xet_artifacts.repository import XetArtifactRepository
from mlflow_xet_artifacts.settings import XetSettings


def located(uri: str, **environ: str) -> RepositoryLocation | BucketLocation:
    return location_of(XetSettings.from_uri(uri, environ))


@pytest.mark.parametrize(
    ("uri", "repo_id", "revision", "is_exact", "path"),
    [
        ("xet://me/models/main", "me/models", "main", False, ""),
        ("xet://me/models/main/", "me/models", "main", False, ""),
        ("xet://Me/My.Models-2/main/1/run/artifacts", "Me/My.Models-2", "main", False, "1/run/artifacts"),
        ("xet://me/models/feature%2Fx/a%20b", "me/models", "feature/x", False, "a b"),
        ("xet://me/models@4f2a9c1", "me/models", "4f2a9c1", True, ""),
        ("xet://me/models@v1.0/model/MLmodel", "me/models", "v1.0", True, "model/MLmodel"),
        ("xet://me/models@refs%2Fpr%2F3/model", "me/models", "refs/pr/3", True, "model"),
    ],
)
def test_a_uri_names_a_folder_of_a_repository(uri: str, repo_id: str, revision: str, is_exact: bool, path: str) -> None:
    found = located(uri)
    assert found == RepositoryLocation(
        repo_type="model", repo_id=repo_id, revision=revision, is_exact=is_exact, path=path
    )
    assert located(str(found)) == found


def test_a_uri_names_a_folder_of_a_bucket() -> None:
    found = located("xet://buckets/me/runs/1/abc/artifacts")
    assert found == BucketLocation(bucket_id="me/runs", path="1/abc/artifacts")
    assert located(str(found)) == found


def test_mlflow_appends_to_the_path_and_keeps_the_options() -> None:
    appended = append_to_uri_path("xet://me/models/feature%2Fx?repo_type=dataset", "1", "artifacts")
    found = located(appended)
    assert isinstance(found, RepositoryLocation)
    assert (found.repo_type, found.revision, found.path) == ("dataset", "feature/x", "1/artifacts")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("xet://me", "names no repository"),
        ("xet:///me/models/main", "names no repository"),
        ("xet:me/models/main", "names no repository"),
        ("xet://me/models", "names no branch"),
        ("xet://buckets/me", "names no bucket"),
        ("xet://me/mod--els/main", "no name that the Hub allows"),
        ("xet://me/models.git/main", "no name that the Hub allows"),
        ("xet://me/models@", "no name of a git revision"),
        ("xet://me/models/a%20b", "no name of a git revision"),
        ("xet://me/models/a~1", "no name of a git revision"),
        ("xet://me:8080/models/main", "user and password, or a port"),
        ("xet://me/models/main/../other", "climbs out"),
        ("xet://me/models/main?repo_typ=dataset", "Did you mean 'repo_type'"),
        ("xet://me/models/main?repo_type=space", "'model' or 'dataset'"),
        ("xet://me/models/main?private=false", "cannot be set in a URI"),
        ("xet://me/models/main?endpoint=https://evil", "cannot be set in a URI"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_with_the_reason(uri: str, reason: str) -> None:
    with pytest.raises(MlflowException, match=reason) as caught:
        XetArtifactRepository(uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_token_in_the_uri_is_refused_and_not_shown() -> None:
    token = "hf_" + "a" * 30
    with pytest.warns(InlineSecretWarning), pytest.raises(MlflowException, match="belongs into HF_TOKEN") as caught:
        XetArtifactRepository(f"xet://me:{token}@models/repository/main")
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("MLFLOW_XET_MESSAGE", "Log {run}", "cannot be filled in"),
        ("MLFLOW_XET_MESSAGE", "Log {", "cannot be filled in"),
        ("MLFLOW_XET_MESSAGE", " ", "blank"),
        ("MLFLOW_XET_TIMEOUT", "0", "above 0"),
        ("MLFLOW_XET_ATTEMPTS", "0", "1 or more"),
        ("HF_ENDPOINT", "huggingface.co", "no URL"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused(variable: str, value: str, reason: str) -> None:
    with pytest.raises(MlflowException, match=reason):
        XetSettings.from_uri("xet://me/models/main", {variable: value})


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hf_fromAFile\n")
    for environ in ({"HF_TOKEN": "hf_fromAFile"}, {"HF_TOKEN_FILE": str(file)}):
        settings = XetSettings.from_uri("xet://me/models/main", environ)
        assert settings.secrets() == ("hf_fromAFile",)
        assert "hf_fromAFile" not in repr(settings)


def test_what_is_created_is_private_unless_the_environment_says_otherwise() -> None:
    assert XetSettings.from_uri("xet://me/models/main", {}).private
    assert not XetSettings.from_uri("xet://me/models/main", {"MLFLOW_XET_PRIVATE": "false"}).private
