"""What only Amazon has (encryption, ACLs, storage classes, owners), on moto; TLS on SeaweedFS; plain `s3://`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import Source
from mlflow_plugkit_testing.artifacts_base import listed
from mlflow_plugkit_testing.server import MlflowServer, fresh_database, plugin_env, run_cli
from mlflow_s3_artifacts.backend import S3Backend
from mlflow_s3_artifacts.objects import CRC_METADATA
from mlflow_s3_artifacts.planes import choose_backend
from mlflow_s3_artifacts.plugin import artifact_repository
from mlflow_s3_artifacts.settings import S3Settings

PREFIX = "MLFLOW_S3_ARTIFACTS_"
BUCKET = "plugkit"
pytestmark = pytest.mark.usefixtures("aws_environment")


def stored_in_every_way(uri: str, folder: Path, *, presigned: bool = True) -> Any:
    """The backend, after a small, a middle and a large file and a presigned upload were stored and read."""
    (folder / "up").mkdir()
    for name, size in (("small", 10), ("middle", 2 * 1024 * 1024), ("large", 6 * 1024 * 1024)):
        (folder / "up" / name).write_bytes(os.urandom(size))
    repository = artifact_repository(uri)
    repository.log_artifacts(str(folder / "up"))
    (folder / "down").mkdir()
    repository.download_artifacts("", str(folder / "down"))
    for name in ("small", "middle", "large"):
        assert (folder / "up" / name).read_bytes() == (folder / "down" / name).read_bytes()
    backend = repository._engine.backend
    if presigned:
        request = backend.presign_put("presigned", 60, None)
        assert requests.put(request.url, data=b"x", headers=dict(request.headers), timeout=30).ok
    return backend


class TestUploadArguments:
    """Each new object gets what the settings ask for, however it is uploaded."""

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"{PREFIX}MULTIPART_THRESHOLD", "5")
        monkeypatch.setenv(f"{PREFIX}PART_SIZE", "5")

    @pytest.mark.usefixtures("data_plane")
    @pytest.mark.parametrize("encryption", ["AES256", "aws:kms"])
    def test_encryption(self, moto: Any, tmp_path: Path, encryption: str) -> None:
        uri = f"s3+http://127.0.0.1:{moto.port}/plugkit/{tmp_path.name}?sse={encryption}"
        backend = stored_in_every_way(uri, tmp_path)
        for name in ("small", "middle", "large", "presigned"):
            answer = moto.client().head_object(Bucket="plugkit", Key=backend.key(name))
            assert answer["ServerSideEncryption"] == encryption, name

    def test_acl_and_storage_class(self, moto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"{PREFIX}ACL", "public-read")
        uri = f"s3+http://127.0.0.1:{moto.port}/plugkit/{tmp_path.name}?storage_class=STANDARD_IA"
        backend = stored_in_every_way(uri, tmp_path)
        assert type(backend) is S3Backend, "obstore cannot send an ACL"
        for name in ("small", "middle", "large", "presigned"):
            assert moto.client().head_object(Bucket="plugkit", Key=backend.key(name))["StorageClass"] == "STANDARD_IA"
            grants = moto.client().get_object_acl(Bucket="plugkit", Key=backend.key(name))["Grants"]
            assert any(grant["Grantee"].get("URI", "").endswith("AllUsers") for grant in grants), name

    def test_what_obstore_cannot_do_is_refused_where_it_was_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"{PREFIX}DATA_PLANE", "obstore")
        monkeypatch.setenv(f"{PREFIX}ACL", "private")
        with pytest.raises(MlflowException, match="does not go together with the upload arguments ACL"):
            artifact_repository("s3+https://h/bucket")


def test_every_request_names_the_expected_owner(moto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}EXPECTED_BUCKET_OWNER", "123456789012")
    monkeypatch.setenv(f"{PREFIX}READ_TIMEOUT", "63.5")  # a connection of its own, to listen to
    backend = choose_backend(S3Settings.from_uri(f"s3+http://127.0.0.1:{moto.port}/plugkit/{tmp_path.name}"))
    owners: list[str] = []

    def note(request: Any, **_: Any) -> None:
        owners.append(request.headers.get("x-amz-expected-bucket-owner", b"missing"))

    backend.connection.client.meta.events.register("before-send.s3", note)
    backend.put("file", Source(data=b"x"), None)
    backend.head("file")
    list(backend.read("file", 0, 1))
    backend.delete_many(["file"])
    assert owners == [b"123456789012"] * 4
    for request in (backend.presign_get("file", 60), backend.presign_put("file", 60, None)):
        assert dict(request.headers)["x-amz-expected-bucket-owner"] == "123456789012"
        assert "x-amz-expected-bucket-owner" in request.url


@pytest.mark.usefixtures("data_plane")
class TestTls:
    """An endpoint with a certificate of one's own CA."""

    @pytest.fixture
    def uri(self, weed: Any, tmp_path: Path) -> str:
        return f"s3+https://127.0.0.1:{weed.tls_port}/plugkit/{tmp_path.name}"

    def test_its_ca_is_trusted_where_it_is_named(
        self, weed: Any, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}CA_BUNDLE", weed.ca_file)
        monkeypatch.setenv(f"{PREFIX}MULTIPART_THRESHOLD", "5")
        monkeypatch.setenv(f"{PREFIX}PART_SIZE", "5")
        stored_in_every_way(uri, tmp_path, presigned=False)
        assert [i.path for i in artifact_repository(uri).list_artifacts()] == ["large", "middle", "small"]

    def test_an_unknown_ca_is_refused_with_the_variable_to_set(
        self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("x")
        for call in (
            lambda: artifact_repository(uri).log_artifact(str(tmp_path / "file")),
            lambda: artifact_repository(uri).list_artifacts(),
        ):
            with pytest.raises(MlflowException, match=f"{PREFIX}CA_BUNDLE") as caught:
                call()
            assert caught.value.error_code == "INVALID_PARAMETER_VALUE"

    def test_any_certificate_is_accepted_only_on_demand(
        self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}IGNORE_TLS", "true")
        (tmp_path / "file").write_text("x")
        artifact_repository(uri).log_artifact(str(tmp_path / "file"))
        assert [i.path for i in artifact_repository(uri).list_artifacts()] == ["file"]


CLASS = """
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
print(type(get_artifact_repository("s3://bucket/prefix")).__name__)
"""


class TestTakingOverPlainS3:
    def run(self, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "always", "-c", program]
        return subprocess.run(command, env=plugin_env(env=variables), capture_output=True, text=True, timeout=120)

    def test_mlflows_own_repository_stays_unless_asked(self) -> None:
        assert self.run(CLASS).stdout.strip() == "S3ArtifactRepository"

    def test_a_variable_takes_over_in_every_process(self) -> None:
        done = self.run(f"import mlflow\n{CLASS}", MLFLOW_S3_ARTIFACTS_TAKE_OVER_S3="true")
        assert done.stdout.strip() == "S3PluginArtifactRepository", done.stderr

    def test_a_program_can_take_over(self) -> None:
        done = self.run(f"import mlflow, mlflow_s3_artifacts\nmlflow_s3_artifacts.take_over_s3()\n{CLASS}")
        assert done.stdout.strip() == "S3PluginArtifactRepository", done.stderr

    def test_a_rival_is_named(self, tmp_path: Path) -> None:
        info = tmp_path / "rival-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[mlflow.artifact_repository]\ns3 = rival:make\n")
        (tmp_path / "rival.py").write_text("def make(*a, **k): raise AssertionError\n")
        done = self.run("import mlflow", MLFLOW_S3_ARTIFACTS_TAKE_OVER_S3="1", PYTHONPATH=str(tmp_path))
        assert "rival registers s3, too" in done.stderr

    @pytest.mark.usefixtures("data_plane")
    def test_plain_s3_is_served_from_the_global_endpoint(
        self, weed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", weed.url)
        (tmp_path / "file").write_text("x")
        repository = artifact_repository(f"s3://plugkit/{tmp_path.name}")
        repository.log_artifact(str(tmp_path / "file"))
        assert [i.path for i in repository.list_artifacts()] == ["file"]

    def test_a_server_takes_over_its_plain_s3_destination(self, weed: Any, tmp_path: Path) -> None:
        """What the server stored carries the checksum that only this plugin writes."""
        variables = {"MLFLOW_S3_ENDPOINT_URL": weed.url, "MLFLOW_S3_ARTIFACTS_TAKE_OVER_S3": "true"}
        place = f"s3://{BUCKET}/{tmp_path.name}/served"
        options = ["--serve-artifacts", "--artifacts-destination", place]
        with MlflowServer(options, folder=tmp_path, env=plugin_env(env=weed.environment | variables)) as server:
            url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/model/weights.bin"
            assert requests.put(url, data=b"weights", timeout=60).status_code == 200
            assert requests.get(url, timeout=60).content == b"weights"
        stored = weed.client().head_object(Bucket=BUCKET, Key=f"{tmp_path.name}/served/model/weights.bin")
        assert CRC_METADATA in stored["Metadata"], stored


@pytest.mark.usefixtures("data_plane")
def test_a_sklearn_model_lives_in_the_bucket_until_gc(fresh_uri: Callable[[], str], tmp_path: Path) -> None:
    """`mlflow.sklearn.log_model`, `load_model` and `mlflow gc`, without a server."""
    from sklearn.linear_model import LinearRegression

    uri, database = fresh_uri(), fresh_database(tmp_path / "tracking")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(database)
    try:
        experiment = mlflow.create_experiment("sklearn", artifact_location=uri)
        with mlflow.start_run(experiment_id=experiment) as run:
            model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
            info = mlflow.sklearn.log_model(model, "model", pip_requirements=[])
            mlflow.log_text("x", "notes/x.txt")
        assert mlflow.sklearn.load_model(info.model_uri).predict([[2.0]])[0] == pytest.approx(4.0)
        mlflow.delete_run(run.info.run_id)
    finally:
        mlflow.set_tracking_uri(before)
    command = ["mlflow", "gc", "--backend-store-uri", database, "--run-ids", run.info.run_id]
    done = run_cli(command, env=plugin_env(env={"MLFLOW_TRACKING_URI": database}), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # SeaweedFS shows a folder for a while after its last object went.
    assert listed(artifact_repository(run.info.artifact_uri)) == {}
