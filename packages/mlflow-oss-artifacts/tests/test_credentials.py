"""Credentials that are renewed: from a file, a URL and the metadata service of ECS."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY_ID, KEY_SECRET, environment
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from oss_emulator import Emulator, MetadataService

from mlflow_oss_artifacts import credentials
from mlflow_oss_artifacts.credentials import Credentials, CredentialSource, ask_metadata, credential_source, parse
from mlflow_oss_artifacts.settings import OssSettings

URI = "oss://artifacts/x"


@pytest.fixture
def metadata(emulator: Emulator) -> Iterator[MetadataService]:
    with MetadataService(emulator) as service:
        yield service


@pytest.fixture
def keyless(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without the AccessKey."""
    monkeypatch.delenv("MLFLOW_OSS_KEY_ID")
    monkeypatch.delenv("MLFLOW_OSS_KEY_SECRET")
    return monkeypatch


def use_role(environ: pytest.MonkeyPatch, service: MetadataService, role: str = "auto") -> None:
    environ.setenv("MLFLOW_OSS_RAM_ROLE", role)
    environ.setenv("MLFLOW_OSS_METADATA_URL", service.url)


@pytest.mark.parametrize("hardened", [True, False])
@pytest.mark.parametrize("role", ["auto", "training"])
def test_a_ram_role_serves_reads_and_writes(
    keyless: pytest.MonkeyPatch, metadata: MetadataService, tmp_path: Path, role: str, hardened: bool
) -> None:
    metadata.hardened = hardened
    use_role(keyless, metadata, role)
    repository = get_artifact_repository(URI)
    (tmp_path / "a.txt").write_text("a")
    repository.log_artifact(str(tmp_path / "a.txt"))
    assert [info.path for info in repository.list_artifacts()] == ["a.txt"]
    assert len(metadata.issued) == 1, "credentials that are valid must not be fetched again"


@pytest.mark.parametrize("signature", ["v4", "v1"])
def test_presigned_urls_carry_the_security_token(
    keyless: pytest.MonkeyPatch, metadata: MetadataService, signature: str
) -> None:
    import requests

    use_role(keyless, metadata)
    keyless.setenv("MLFLOW_OSS_SIGNATURE", signature)
    backend = get_artifact_repository(URI)._engine.backend
    upload = backend.presign_put("a.txt", 60, "text/plain")
    assert requests.put(upload.url, data=b"abc", headers=dict(upload.headers), timeout=10).status_code == 200
    assert requests.get(backend.presign_get("a.txt", 60).url, timeout=10).content == b"abc"


def test_credentials_are_renewed_before_they_expire(keyless: pytest.MonkeyPatch, metadata: MetadataService) -> None:
    use_role(keyless, metadata)
    repository = get_artifact_repository(URI)
    repository.list_artifacts()
    clock = time.time() + 3600 - credentials.RENEW_SECONDS + 1
    keyless.setattr(credentials.time, "time", lambda: clock)
    source = repository._engine.backend._opened[1]
    assert source.get().key_id == metadata.issued[1]["AccessKeyId"]
    assert len(metadata.issued) == 2


def test_credentials_that_live_shortly_are_not_fetched_for_each_request(
    keyless: pytest.MonkeyPatch, metadata: MetadataService
) -> None:
    metadata.lifetime = 200
    use_role(keyless, metadata)
    repository = get_artifact_repository(URI)
    for _ in range(5):
        repository.list_artifacts()
    assert len(metadata.issued) == 1


def test_a_token_that_oss_calls_expired_is_renewed_at_once(
    keyless: pytest.MonkeyPatch, metadata: MetadataService, emulator: Emulator
) -> None:
    use_role(keyless, metadata)
    repository = get_artifact_repository(URI)
    repository.list_artifacts()
    emulator.keys[metadata.issued[0]["AccessKeyId"]].expires = 1.0
    assert repository.list_artifacts() == []
    assert len(metadata.issued) == 2


def test_a_renewal_that_fails_leaves_what_is_valid(keyless: pytest.MonkeyPatch, metadata: MetadataService) -> None:
    use_role(keyless, metadata)
    repository = get_artifact_repository(URI)
    repository.list_artifacts()
    metadata.failing = True
    source = repository._engine.backend._opened[1]
    now = time.time()
    keyless.setattr(credentials.time, "time", lambda: now + 3500)
    assert source.get().key_id == metadata.issued[0]["AccessKeyId"]
    keyless.setattr(credentials.time, "time", lambda: now + 3700)
    with pytest.raises(MlflowException) as caught:
        source.get()
    assert caught.value.error_code == "UNAUTHENTICATED"


def test_a_file_that_another_program_replaces_is_read_again(
    keyless: pytest.MonkeyPatch, metadata: MetadataService, emulator: Emulator, tmp_path: Path
) -> None:
    """STS's answer to AssumeRole has them inside `Credentials`; the bare form is read as well."""
    file = tmp_path / "sts.json"
    file.write_text(json.dumps({"RequestId": "1", "Credentials": metadata.issue()}))
    keyless.setenv("MLFLOW_OSS_CREDENTIALS_FILE", str(file))
    repository = get_artifact_repository(URI)
    repository.list_artifacts()
    (tmp_path / "new.json").write_text(json.dumps(metadata.issue()))
    os.replace(tmp_path / "new.json", file)
    del emulator.keys[metadata.issued[0]["AccessKeyId"]]
    assert repository.list_artifacts() == []


def test_a_file_is_looked_at_regularly(
    metadata: MetadataService, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sts.json"
    file.write_text(json.dumps(metadata.issue()))
    environ = {**environment(emulator), "MLFLOW_OSS_CREDENTIALS_FILE": str(file)}
    without = {k: v for k, v in environ.items() if "KEY" not in k}
    source = credential_source(OssSettings.from_uri(URI, without))
    first = source.get()
    file.write_text(json.dumps(metadata.issue()))
    assert source.get() is first
    later = time.time() + credentials.FILE_CHECK_SECONDS + 0.1
    monkeypatch.setattr(credentials.time, "time", lambda: later)
    assert source.get().key_id == metadata.issued[1]["AccessKeyId"]


def test_a_url_answers_credentials(keyless: pytest.MonkeyPatch, metadata: MetadataService) -> None:
    keyless.setenv("ALIBABA_CLOUD_CREDENTIALS_URI", f"{metadata.url}/token/x")
    assert get_artifact_repository(URI).list_artifacts() == []
    assert len(metadata.issued) == 1


def test_threads_fetch_once(metadata: MetadataService) -> None:
    gate = threading.Barrier(8)
    source = CredentialSource(lambda: ask_metadata(metadata.url, "training"))
    found = []

    def ask() -> None:
        gate.wait(10)
        found.append(source.get().key_id)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(metadata.issued), len(set(found)), len(found)) == (1, 1, 8)


def test_every_secret_is_told_before_it_is_used() -> None:
    told: list[str] = []
    fresh = iter([Credentials("id-1", "secret-1", "token-1"), Credentials("id-2", "secret-2")])
    source = CredentialSource(lambda: next(fresh), told.extend)
    source.get()
    source.forget()
    source.get()
    assert told == ["id-1", "secret-1", "token-1", "id-2", "secret-2"]
    assert set(source.secrets()) == set(told), "an error may still hold one that was replaced"


def test_the_access_key_wins_over_the_other_sources(emulator: Emulator) -> None:
    environ = {**environment(emulator), "MLFLOW_OSS_RAM_ROLE": "auto", "MLFLOW_OSS_CREDENTIALS_FILE": "missing"}
    found = credential_source(OssSettings.from_uri(URI, environ)).get()
    assert (found.key_id, found.key_secret) == (KEY_ID, KEY_SECRET)


@pytest.mark.parametrize(
    "environ",
    [
        {"MLFLOW_OSS_CREDENTIALS_FILE": "missing.json"},
        {"MLFLOW_OSS_CREDENTIALS_URI": "http://127.0.0.1:1/x"},
        {"MLFLOW_OSS_RAM_ROLE": "auto", "MLFLOW_OSS_METADATA_URL": "http://127.0.0.1:1"},
    ],
)
def test_a_source_that_does_not_answer_is_unauthenticated(emulator: Emulator, environ: dict[str, str]) -> None:
    where = {k: v for k, v in environment(emulator).items() if "KEY" not in k}
    with pytest.raises(MlflowException) as caught:
        credential_source(OssSettings.from_uri(URI, where | environ)).get()
    assert caught.value.error_code == "UNAUTHENTICATED"


def test_a_role_that_is_not_attached_says_so(metadata: MetadataService) -> None:
    with pytest.raises(MlflowException, match="HTTP 404"):
        ask_metadata(metadata.url, "another")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"AccessKeyId": "aKeyIdOfMine"}', "aKeyIdOfMine", '{"Credentials": "aKeyIdOfMine"}']
)
def test_an_answer_of_another_form_is_not_shown(text: str) -> None:
    with pytest.raises(MlflowException) as caught:
        parse(text, "the test")
    assert (caught.value.error_code, "aKeyIdOfMine" in str(caught.value)) == ("UNAUTHENTICATED", False)


def test_no_repr_shows_a_secret() -> None:
    assert "secret-1" not in repr(Credentials("id-1", "secret-1", "token-1"))
