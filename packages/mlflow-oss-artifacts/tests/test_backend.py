"""The backend over each SDK, against the emulator."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import KEY_ID, KEY_SECRET
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from oss_emulator import Emulator
from oss_emulator.server import Answer
from oss_emulator.storage import Bucket, Stored

from mlflow_oss_artifacts.backend import OssBackend
from mlflow_oss_artifacts.errors import DamagedTransferError
from mlflow_oss_artifacts.settings import OssSettings
from mlflow_plugkit.artifacts.backend import Digest, Source
from mlflow_plugkit.artifacts.checksums import digest_of

ODD = "Grüße/日本語 + 100%/a&b=c;d'e\"f<g>?#[x]~*().txt"


@pytest.fixture
def bucket(emulator: Emulator) -> Bucket:
    return emulator.buckets["artifacts"]


@pytest.fixture
def backend(oss_env: Any) -> Iterator[OssBackend]:
    backend = OssBackend(OssSettings.from_uri("oss://artifacts/root"))
    yield backend
    backend.close()


def whole(
    backend: OssBackend, path: str, start: int = 0, length: int | None = None, version: str | None = None
) -> bytes:
    return b"".join(backend.read(path, start, length, version))


@pytest.mark.parametrize("signature", ["v4", "v1"])
@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_what_is_put_is_read(
    backend: OssBackend, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, signature: str, size: int, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_OSS_SIGNATURE", signature)
    backend = OssBackend(OssSettings.from_uri("oss://artifacts/root"))
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    source = Source(file=tmp_path / "f")
    stored = backend.put(ODD, source, "text/plain", None)
    assert stored is not None
    assert (stored.size, stored.digest) == (size, digest_of(source, "crc64"))
    assert bucket.objects[f"root/{ODD}"].data == content
    assert bucket.objects[f"root/{ODD}"].headers["content-type"] == "text/plain"
    assert whole(backend, ODD, version=stored.version) == content
    assert backend.head(ODD) == stored


@pytest.mark.parametrize(("start", "length"), [(0, 10), (5, 20), (99_990, 10), (50_000, None), (0, None), (7, 0)])
def test_ranges_are_read(backend: OssBackend, start: int, length: int | None) -> None:
    content = os.urandom(100_000)
    backend.put("a.bin", Source(data=content), None)
    end = None if length is None else start + length
    assert whole(backend, "a.bin", start, length) == content[start:end]


def test_a_range_of_another_version_is_an_error(backend: OssBackend) -> None:
    stored = backend.put("a.bin", Source(data=b"first"), None)
    backend.put("a.bin", Source(data=b"other"), None)
    assert stored is not None
    with pytest.raises(Exception, match=r"PreconditionFailed|412"):
        whole(backend, "a.bin", 1, 2, version=stored.version)


def test_a_range_beyond_the_end_is_an_error_and_not_the_whole(backend: OssBackend) -> None:
    backend.put("a.bin", Source(data=b"abc"), None)
    with pytest.raises(Exception, match=r"InvalidRange|416"):
        whole(backend, "a.bin", 3, 5)


def test_content_that_oss_stores_otherwise_is_an_error_when_it_is_read(backend: OssBackend, bucket: Bucket) -> None:
    """CRC64 of what came, against the one that OSS keeps."""
    backend.put("a.bin", Source(data=b"abc"), None)
    bucket.objects["root/a.bin"].data = b"abd"
    with pytest.raises(DamagedTransferError):
        whole(backend, "a.bin")


def test_content_that_is_damaged_on_its_way_is_never_stored(
    backend: OssBackend, bucket: Bucket, monkeypatch: Any
) -> None:
    monkeypatch.setattr("mlflow_oss_artifacts.backend._md5", lambda _: "1B2M2Y8AsgTpgAmY7PhCfg==")
    with pytest.raises(Exception, match="InvalidDigest"):
        backend.put("a.bin", Source(data=b"abc"), None)
    assert not bucket.objects


def test_a_part_that_is_damaged_on_its_way_is_an_error(backend: OssBackend, emulator: Emulator) -> None:
    upload = backend.create_multipart("a.bin", None, None)
    emulator.intercept = lambda _: Answer(200, {"ETag": '"X"', "x-oss-hash-crc64ecma": "12345"})
    with pytest.raises(DamagedTransferError) as caught:
        backend.put_part("a.bin", upload, 1, Source(data=b"abc"))
    assert backend.retry_delay(caught.value) == 0.0


def test_content_is_read_as_it_is_stored(backend: OssBackend, bucket: Bucket) -> None:
    """An object that says it is compressed (some tool stored it so) is not unpacked on its way."""
    bucket.store("root/a.gz", Stored(b"not really gzip", {"content-encoding": "gzip"}))
    assert whole(backend, "a.gz") == b"not really gzip"


def test_listings_have_one_level_in_large_pages(backend: OssBackend, bucket: Bucket, emulator: Emulator) -> None:
    names = [f"root/d/{n:04}" for n in range(1500)] + ["root/d/sub/x", f"root/d/{ODD}", "root/dx", "root/d/"]
    for name in names:
        bucket.store(name, Stored(b"12"))
    first = backend.list_page("d", None)
    second = backend.list_page("d", first.next_token)
    assert (len(first.objects) + len(first.folders), second.next_token) == (1000, None)
    found = {o.path: o.size for o in [*first.objects, *second.objects]}
    assert found == {f"d/{n:04}": 2 for n in range(1500)} | {"d/": 2}
    assert {*first.folders, *second.folders} == {"d/sub", "d/Grüße"}
    emulator.counts.clear()
    everything = {o.path for o in backend.list_all("d")}
    assert everything == {name.removeprefix("root/") for name in names} - {"dx"}
    assert emulator.counts == {"HeadObject": 1, "ListObjectsV2": 2}


def test_the_whole_bucket_can_be_the_root(oss_env: Any, bucket: Bucket) -> None:
    backend = OssBackend(OssSettings.from_uri("oss://artifacts"))
    backend.put("a/b.txt", Source(data=b"1"), None)
    assert list(bucket.objects) == ["a/b.txt"]
    assert [o.path for o in backend.list_all("")] == ["a/b.txt"]
    assert backend.list_page("", None).folders == ["a"]


def test_deletion_names_what_could_not_be_deleted(backend: OssBackend, bucket: Bucket, emulator: Emulator) -> None:
    """OSS leaves it out of its answer; the reason comes from asking for it alone."""
    for name in ("a", ODD, "c"):
        backend.put(name, Source(data=b"1"), None)
    bucket.protected.add("root/c")
    failures = backend.delete_many(["a", ODD, "c", "missing"])
    assert [(f.path, f.code) for f in failures] == [("c", "FileImmutable")]
    assert list(bucket.objects) == ["root/c"]
    repository = get_artifact_repository("oss://artifacts/root")
    with pytest.raises(MlflowException, match="'c'") as caught:
        repository.delete_artifacts()
    assert caught.value.error_code == "PERMISSION_DENIED"


def test_deletion_without_permission_is_an_error(backend: OssBackend, emulator: Emulator) -> None:
    backend.put("a", Source(data=b"1"), None)
    emulator.denied.add("DeleteMultipleObjects")
    with pytest.raises(Exception, match="AccessDenied"):
        backend.delete_many(["a"])


def test_parts_become_one_object(backend: OssBackend, bucket: Bucket) -> None:
    pieces = [os.urandom(100 * 1024), os.urandom(150_000), b"end"]
    digest = digest_of(Source(data=b"".join(pieces)), "crc64")
    upload = backend.create_multipart(ODD, "text/plain", digest)
    parts = [backend.put_part(ODD, upload, n, Source(data=piece)) for n, piece in reversed([*enumerate(pieces, 1)])]
    assert backend.list_parts(ODD, upload) == sorted(parts, key=lambda part: part.number)
    assert backend.head(ODD) is None
    stored = backend.complete_multipart(ODD, upload, sorted(parts, key=lambda part: part.number))
    assert stored is not None
    assert (stored.digest, stored.size) == (digest, sum(map(len, pieces)))
    assert whole(backend, ODD) == b"".join(pieces)
    assert bucket.objects[f"root/{ODD}"].headers["content-type"] == "text/plain"
    assert backend.list_parts(ODD, upload) is None


def test_unfinished_uploads_are_listed_and_aborted(backend: OssBackend, bucket: Bucket) -> None:
    before = time.time()
    uploads = {name: backend.create_multipart(name, None, None) for name in ("a", ODD)}
    bucket.begin("rootless/other", {})
    pending = {p.path: p for p in backend.list_multiparts()}
    assert {path: p.upload_id for path, p in pending.items()} == uploads
    assert all(before - 2 < p.started < before + 60 for p in pending.values())
    for name, upload in uploads.items():
        backend.abort_multipart(name, upload)
        backend.abort_multipart(name, upload)
    assert list(backend.list_multiparts()) == []


def test_more_uploads_and_parts_than_a_page_are_listed(backend: OssBackend, bucket: Bucket) -> None:
    for n in range(1100):
        bucket.begin(f"root/{n}", {})
    assert len(list(backend.list_multiparts())) == 1100
    upload = backend.create_multipart("many", None, None)
    bucket.uploads[upload].parts = {n: Stored(b"%d" % n) for n in range(1, 1101)}
    parts = backend.list_parts("many", upload)
    assert parts is not None
    assert [part.number for part in parts] == list(range(1, 1101))


@pytest.mark.parametrize("signature", ["v4", "v1"])
def test_presigned_requests_work_without_keys(
    backend: OssBackend, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, signature: str
) -> None:
    monkeypatch.setenv("MLFLOW_OSS_SIGNATURE", signature)
    backend = OssBackend(OssSettings.from_uri("oss://artifacts/root?storage_class=IA"))
    upload = backend.presign_put(ODD, 60, "text/csv")
    assert requests.put(upload.url, data=b"abc", timeout=10).status_code == 403, "the headers are signed"
    assert requests.put(upload.url, data=b"abc", headers=dict(upload.headers), timeout=10).ok
    kept = emulator.buckets["artifacts"].objects[f"root/{ODD}"].headers
    assert kept == {"content-type": "text/csv", "x-oss-storage-class": "IA"}
    download = backend.presign_get(ODD, 60)
    assert requests.get(download.url, timeout=10).content == b"abc"
    assert requests.get(download.url + "x", timeout=10).status_code == 403
    upload_id = backend.create_multipart("parts", None, None)
    part = backend.presign_part("parts", upload_id, 1, 60)
    assert requests.put(part.url, data=b"part", headers=dict(part.headers), timeout=10).ok
    found = backend.list_parts("parts", upload_id)
    assert found is not None
    assert [(p.number, p.size) for p in found] == [(1, 4)]
    assert set(emulator.versions) == {signature}


def test_a_presigned_url_expires(backend: OssBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.put("a", Source(data=b"abc"), None)
    url = backend.presign_get("a", 1).url
    later = time.time() + 5
    monkeypatch.setattr("oss_emulator.signing.time.time", lambda: later)
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, "expired" in answer.text) == (403, True)


def test_new_objects_get_what_the_settings_say(oss_env: Any, bucket: Bucket) -> None:
    uri = "oss://artifacts/root?storage_class=IA&encryption=KMS&kms_key_id=key-1"
    backend = OssBackend(OssSettings.from_uri(uri))
    backend.put("whole", Source(data=b"1"), None)
    upload = backend.create_multipart("parts", None, None)
    backend.complete_multipart("parts", upload, [backend.put_part("parts", upload, 1, Source(data=b"1"))])
    for key in ("root/whole", "root/parts"):
        assert bucket.objects[key].headers == {
            "content-type": "application/octet-stream",
            "x-oss-storage-class": "IA",
            "x-oss-server-side-encryption": "KMS",
            "x-oss-server-side-encryption-key-id": "key-1",
        }


def test_small_files_take_one_request_each(oss_env: Any, emulator: Emulator, tmp_path: Path) -> None:
    for n in range(10):
        (tmp_path / f"{n}.bin").write_bytes(os.urandom(2000))
    repository = get_artifact_repository("oss://artifacts/few")
    repository.log_artifacts(str(tmp_path), "d")
    assert emulator.counts == {"PutObject": 10}
    emulator.counts.clear()
    (tmp_path / "out").mkdir()
    repository.download_artifacts("d", str(tmp_path / "out"))
    assert (emulator.counts["GetObject"], emulator.counts["HeadObject"]) == (10, 0)


def test_a_damaged_small_file_that_a_listing_described_is_fetched_again(
    oss_env: Any, emulator: Emulator, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.store("d/x/a.bin", Stored(os.urandom(2000)))
    left = [2]

    def damage(answer: Answer) -> Answer:
        left[0] -= 1
        body = bytes([answer.body[0] ^ 1]) + answer.body[1:]
        return Answer(answer.status, answer.headers, body) if left[0] >= 0 else answer

    with emulator.damaged_downloads(damage):
        get_artifact_repository("oss://artifacts/d").download_artifacts("x", str(tmp_path))
    assert (tmp_path / "x" / "a.bin").read_bytes() == bucket.objects["d/x/a.bin"].data


def test_a_forked_child_makes_its_own_connections(backend: OssBackend) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this platform cannot fork")
    repository = get_artifact_repository("oss://artifacts/forked")
    repository.list_artifacts()
    child = os.fork()
    if child == 0:
        ok = repository.list_artifacts() == []
        os._exit(0 if ok else 1)
    deadline = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert done == (child, 0)


def test_nothing_connects_before_the_first_use(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", "http://127.0.0.1:1")
    repository = get_artifact_repository("oss://artifacts/x")
    assert repository._engine.backend._opened is None


def test_secrets_are_known_to_the_error_table(backend: OssBackend) -> None:
    backend.head("x")
    assert {KEY_ID, KEY_SECRET} <= set(backend.secrets())
    with pytest.raises(TypeError):  # connections and locks; a repository is made anew from its URI
        pickle.dumps(backend)


def test_the_settings_module_needs_no_sdk() -> None:
    """`import mlflow` loads the entry point, and a server reads settings, without either SDK."""
    import subprocess

    code = "import sys, mlflow_oss_artifacts.settings, mlflow_oss_artifacts.errors, mlflow_oss_artifacts.plugin;"
    code += "sys.exit(any(name in sys.modules for name in ('oss2', 'alibabacloud_oss_v2', 'requests')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_digests_are_those_of_oss(backend: OssBackend) -> None:
    """The check value of CRC-64/XZ."""
    stored = backend.put("check", Source(data=b"123456789"), None)
    assert stored is not None
    assert stored.digest == Digest("crc64", "995dc9bbdf1939fa")
