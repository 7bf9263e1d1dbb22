"""What the backend sends to and reads from real servers, on both data planes."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import requests
from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import Digest, Source
from mlflow_plugkit_testing.faults import Fault, FaultProxy
from mlflow_plugkit_testing.server import plugin_env
from mlflow_s3_artifacts import client
from mlflow_s3_artifacts.backend import S3Backend
from mlflow_s3_artifacts.planes import choose_backend
from mlflow_s3_artifacts.plugin import artifact_repository
from mlflow_s3_artifacts.settings import S3Settings

pytestmark = pytest.mark.usefixtures("aws_environment", "data_plane")
MEBIBYTE = 1024 * 1024


def backend_at(uri: str) -> Any:
    return choose_backend(S3Settings.from_uri(uri))


def crc(content: bytes) -> str:
    return f"{google_crc32c.value(content):08x}"


@pytest.fixture
def backend(fresh_uri: Callable[[], str]) -> Any:
    return backend_at(fresh_uri())


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, MEBIBYTE, MEBIBYTE + 1])
def test_an_object_keeps_its_checksum_and_type(backend: Any, size: int) -> None:
    content = os.urandom(size)
    backend.put("a/model.json", Source(data=content), "application/json", Digest("crc32c", crc(content)))
    stored = backend.head("a/model.json")
    assert (stored.size, stored.digest) == (size, Digest("crc32c", crc(content)))
    answer = backend.connection.client.head_object(Bucket="plugkit", Key=backend.key("a/model.json"))
    assert answer["ContentType"] == "application/json"
    assert b"".join(bytes(c) for c in backend.read("a/model.json", 0, size, stored.version)) == content


def test_a_range_is_read_from_one_version_only(backend: Any) -> None:
    backend.put("file", Source(data=b"0123456789"), None)
    version = backend.head("file").version
    assert b"".join(bytes(c) for c in backend.read("file", 2, 3, version)) == b"234"
    backend.put("file", Source(data=b"abcdefghij"), None)
    with pytest.raises(MlflowException) as caught, backend.errors.applied("read"):
        list(backend.read("file", 2, 3, version))
    assert caught.value.error_code == "RESOURCE_CONFLICT"


def test_the_server_refuses_an_upload_whose_checksum_is_wrong(backend: Any, tmp_path: Path) -> None:
    content = os.urandom(2 * MEBIBYTE)
    with pytest.raises(MlflowException) as caught, backend.errors.applied("put"):
        backend.put("file", Source(data=content), None, Digest("crc32c", crc(b"other")))
    assert caught.value.error_code == "DATA_LOSS"
    assert backend.head("file") is None


def test_a_multipart_upload_goes_on_in_another_process(backend: Any, fresh_uri: Callable[[], str]) -> None:
    first, last = os.urandom(5 * MEBIBYTE), b"the end"
    digest = Digest("crc32c", crc(first + last))
    upload_id = backend.create_multipart("big", "application/x-test", digest)
    backend.put_part("big", upload_id, 1, Source(data=first))
    assert [(u.path, u.upload_id) for u in backend.list_multiparts()] == [("big", upload_id)]

    other = choose_backend(backend.settings)
    arrived = other.list_parts("big", upload_id)
    assert [(p.number, p.size) for p in arrived] == [(1, len(first))]
    parts = [*arrived, other.put_part("big", upload_id, 2, Source(data=last))]
    other.complete_multipart("big", upload_id, parts)
    assert other.head("big").digest == digest
    assert list(other.list_multiparts()) == []
    assert other.list_parts("big", upload_id) is None


def test_a_part_that_arrives_damaged_is_refused(weed: Any, fresh_uri: Callable[[], str]) -> None:
    uri = fresh_uri()
    with FaultProxy("127.0.0.1", weed.port) as proxy:
        far = backend_at(uri.replace(str(weed.port), str(proxy.port)))
        content = os.urandom(5 * MEBIBYTE)
        upload_id = far.create_multipart("big", None, Digest("crc32c", crc(content)))
        damage = proxy.inject(Fault("corrupt-request", times=None))
        with damage, pytest.raises(MlflowException) as caught, far.errors.applied("put"):
            far.put_part("big", upload_id, 1, Source(data=content))
        assert caught.value.error_code == "DATA_LOSS"
        far.abort_multipart("big", upload_id)
        far.abort_multipart("big", upload_id)


def test_objects_of_others_are_verified_by_what_their_etag_says(backend: Any, weed: Any, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    weed.client().put_object(Bucket="plugkit", Key=backend.key("theirs.bin"), Body=content)
    assert backend.head("theirs.bin").digest == Digest("md5", hashlib.md5(content).hexdigest())
    [listed] = backend.list_page("", None).objects
    assert listed.digest == Digest("md5", hashlib.md5(content).hexdigest())


def test_folder_markers_and_odd_keys_do_no_harm(backend: Any, weed: Any, tmp_path: Path) -> None:
    """Other tools store empty objects for folders, and keys that are no clean path."""
    s3 = weed.client()
    for key in ("folder/", "folder/file.txt", "a b+c%20d&e.txt"):
        s3.put_object(Bucket="plugkit", Key=backend.key(key), Body=b"" if key.endswith("/") else b"x")
    repository = artifact_repository(backend.root)
    assert [i.path for i in repository.list_artifacts()] == ["a b+c%20d&e.txt", "folder"]
    assert [i.path for i in repository.list_artifacts("folder")] == ["folder/file.txt"]
    repository.delete_artifacts()
    left = s3.list_objects_v2(Bucket="plugkit", Prefix=backend.key("")).get("Contents", [])
    assert left == []


def test_a_deleted_folder_is_listed_no_more_and_its_neighbours_stay(backend: Any) -> None:
    for path in ("a/b/x", "a/b/y", "a/c/x", "ab/x"):
        backend.put(path, Source(data=b"x"), None)
    repository = artifact_repository(backend.root)
    repository.delete_artifacts("a/b")
    assert [i.path for i in repository.list_artifacts("a")] == ["a/c"]
    repository.delete_artifacts("a")
    assert [i.path for i in repository.list_artifacts()] == ["ab"]
    backend.delete_many(["ab/missing"])
    assert backend.head("ab/x") is not None


def test_presigned_urls_name_the_type_that_was_signed(backend: Any) -> None:
    request = backend.presign_put("page.html", 60, "text/html")
    assert dict(request.headers) == {"Content-Type": "text/html"}
    answer = requests.put(request.url, data=b"<p>", headers=dict(request.headers), timeout=30)
    assert answer.ok
    assert requests.get(backend.presign_get("page.html", 60).url, timeout=30).headers["Content-Type"] == "text/html"


def test_repositories_share_one_connection(fresh_uri: Callable[[], str]) -> None:
    first, second = backend_at(fresh_uri()), backend_at(fresh_uri())
    assert first.connection is second.connection


def test_other_credentials_are_another_connection(fresh_uri: Callable[[], str], monkeypatch: Any) -> None:
    first = backend_at(fresh_uri()).connection
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    assert backend_at(fresh_uri()).connection is not first


def test_a_forked_child_goes_on(fresh_uri: Callable[[], str], tmp_path: Path) -> None:
    """As in a data loader's worker: threads and connections of the parent are not there."""
    repository = artifact_repository(fresh_uri())
    for number in range(3):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / str(number)).write_bytes(os.urandom(1000))
    repository.log_artifacts(str(tmp_path / "files"), "parent")
    child = os.fork()
    if not child:
        status = 1
        with suppress(Exception):
            repository.log_artifacts(str(tmp_path / "files"), "child")
            (tmp_path / "back").mkdir()
            repository.download_artifacts("parent", str(tmp_path / "back"))
            status = 0
        os._exit(status)
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked child hangs")
        time.sleep(0.05)
    assert ended[1] == 0
    assert len(repository.list_artifacts("child")) == 3
    assert len(list((tmp_path / "back" / "parent").iterdir())) == 3


def test_many_threads_make_one_connection(fresh_uri: Callable[[], str], monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_READ_TIMEOUT", "61.5")  # a connection of its own
    found: list[Any] = []
    backends = [backend_at(fresh_uri()) for _ in range(8)]
    threads = [threading.Thread(target=lambda b=b: found.append(b.connection)) for b in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len({id(connection) for connection in found}) == 1


def test_refreshed_credentials_reach_both_planes(backend: Any, weed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that end are renewed by boto3, and the next request is signed with the new ones, by either plane."""
    from botocore.credentials import RefreshableCredentials

    secret = [weed.secret_key]

    def renew() -> dict[str, str]:
        until = datetime.now(timezone.utc) + timedelta(seconds=1)
        return {"access_key": weed.access_key, "secret_key": secret[0], "token": "", "expiry_time": until.isoformat()}

    credentials = RefreshableCredentials.create_from_metadata(renew(), renew, "test")
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda self: credentials)
    monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_READ_TIMEOUT", "62.5")  # a connection of its own
    fresh = choose_backend(S3Settings.from_uri(backend.root))
    fresh.put("file", Source(data=b"x"), None)

    def is_readable() -> bool:
        with suppress(ClientError):
            return b"".join(bytes(c) for c in fresh.read("file", 0, 1)) == b"x"
        return False

    def becomes(readable: bool) -> bool:
        """Whether this is so within ten seconds: credentials are used until they end."""
        deadline = time.monotonic() + 10
        while is_readable() != readable:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    secret[0] = "of-somebody-else"
    assert becomes(readable=False)
    secret[0] = weed.secret_key
    assert becomes(readable=True)


def test_nothing_is_kept_open_by_a_reader_that_is_dropped(backend: Any) -> None:
    backend.put("file", Source(data=os.urandom(3 * MEBIBYTE)), None)
    for _ in range(2 * backend.parallel_transfers + 2):
        reader = backend.read("file", 0, 3 * MEBIBYTE)
        next(reader)
        reader.close()
    gc.collect()
    assert len(b"".join(bytes(c) for c in backend.read("file", 0, 3 * MEBIBYTE))) == 3 * MEBIBYTE


def test_a_repository_can_be_sent_to_another_process(fresh_uri: Callable[[], str], tmp_path: Path) -> None:
    uri = fresh_uri()
    (tmp_path / "file.txt").write_text("x")
    artifact_repository(uri).log_artifact(str(tmp_path / "file.txt"))
    program = f"from mlflow_s3_artifacts.plugin import artifact_repository as a; print(a({uri!r}).list_artifacts())"
    run = subprocess.run([sys.executable, "-c", program], env=plugin_env(), capture_output=True, text=True, timeout=120)
    assert "file.txt" in run.stdout, run.stderr
    assert pickle.loads(pickle.dumps(S3Settings.from_uri(uri))) == S3Settings.from_uri(uri)


def test_listings_are_read_by_pages(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        backend.put(f"many/{number}", Source(data=b"x"), None)
    whole = S3Backend._list
    monkeypatch.setattr(S3Backend, "_list", lambda self, p, t, more: whole(self, p, t, more | {"MaxKeys": 2}))
    found, token = [], None
    for _ in range(5):
        page = backend.list_page("many", token)
        found += [o.path for o in page.objects]
        token = page.next_token
        if token is None:
            break
    assert found == [f"many/{number}" for number in range(5)]
    assert sorted(o.path for o in backend.list_all("many")) == found


def test_secrets_are_known_only_after_the_first_use(fresh_uri: Callable[[], str], weed: Any) -> None:
    fresh = backend_at(fresh_uri())
    assert fresh.secrets() == ()
    fresh.head("nothing")
    assert weed.secret_key in fresh.secrets()
    assert client.secrets_of(None) == ()
