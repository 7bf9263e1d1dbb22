"""Where requests go: bucket in the host, in the path or in neither; proxies, certificates, pools."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import KEY_ID, KEY_SECRET
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from oss_emulator import Emulator

from mlflow_oss_artifacts.backend import OssBackend
from mlflow_oss_artifacts.settings import OssSettings
from mlflow_oss_artifacts.transport import make_session
from mlflow_plugkit.artifacts.backend import Source


def backend(uri: str = "oss://artifacts/x") -> OssBackend:
    return OssBackend(OssSettings.from_uri(uri))


def round_trip(emulator: Emulator) -> None:
    there = backend()
    there.put("two words/ü.txt", Source(data=b"abc"), None)
    assert emulator.buckets["artifacts"].objects["x/two words/ü.txt"].data == b"abc"
    assert b"".join(there.read("two words/ü.txt", 0, None)) == b"abc"
    assert [o.path for o in there.list_all("")] == ["two words/ü.txt"]


@pytest.mark.parametrize("signature", ["v4", "v1"])
@pytest.mark.parametrize(
    ("network", "host"),
    [
        ("public", "artifacts.oss-cn-test.aliyuncs.com"),
        ("internal", "artifacts.oss-cn-test-internal.aliyuncs.com"),
        ("accelerate", "artifacts.oss-accelerate.aliyuncs.com"),
    ],
)
def test_the_bucket_stands_in_the_host_of_a_region(
    oss_env: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, network: str, host: str, signature: str
) -> None:
    """The emulator is the HTTP proxy here, so that it sees the host without a name server that knows it."""
    monkeypatch.delenv("MLFLOW_OSS_ENDPOINT_URL")
    monkeypatch.setenv("MLFLOW_OSS_NETWORK", network)
    monkeypatch.setenv("MLFLOW_OSS_SIGNATURE", signature)
    monkeypatch.setenv("HTTP_PROXY", emulator.url)
    monkeypatch.setattr(OssSettings, "endpoint_url", OssSettings.from_uri("oss://b1-b").endpoint_url.replace("s:", ":"))
    round_trip(emulator)
    assert {target.split("/")[2] for _, target, _ in emulator.log} == {host}


def test_a_bound_domain_stands_for_the_bucket(
    oss_env: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.domains["files.example.com"] = "artifacts"
    monkeypatch.setenv("HTTP_PROXY", emulator.url)
    monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", "http://files.example.com")
    monkeypatch.setenv("MLFLOW_OSS_ADDRESSING", "cname")
    round_trip(emulator)
    assert {target.split("/")[2] for _, target, _ in emulator.log} == {"files.example.com"}
    assert not any("artifacts" in target for _, target, _ in emulator.log)
    url = backend().presign_get("two words/ü.txt", 60).url
    assert requests.get(url, timeout=10, proxies={"http": emulator.url}).content == b"abc"


def test_the_bucket_stands_in_the_path_of_an_address(oss_env: Any, emulator: Emulator) -> None:
    round_trip(emulator)
    assert all(target.startswith("/artifacts/") for _, target, _ in emulator.log)


def test_a_netrc_does_not_replace_the_signature(
    oss_env: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    round_trip(emulator)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    trustme = pytest.importorskip("trustme", reason="trustme makes the certificates for TLS tests")
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder


def test_an_own_certificate_authority_is_trusted_where_it_is_named(
    oss_env: Any, monkeypatch: pytest.MonkeyPatch, authority: Path, tmp_path: Path
) -> None:
    from conftest import reset

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem")
    with Emulator() as secure:
        reset(secure)
        secure._server.socket = context.wrap_socket(secure._server.socket, server_side=True)
        monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", secure.url.replace("http:", "https:"))
        with pytest.raises(MlflowException, match="MLFLOW_OSS_CA_FILE"):
            get_artifact_repository("oss://artifacts/x").list_artifacts()
        monkeypatch.setenv("MLFLOW_OSS_CA_FILE", str(authority / "ca.pem"))
        round_trip(secure)


def test_there_are_as_many_connections_as_parallel_transfers(oss_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_OSS_PARALLEL", "7")
    session = make_session(OssSettings.from_uri("oss://artifacts/x"))
    adapter = session.get_adapter("https://example.com")
    assert adapter._pool_maxsize == backend().parallel_transfers == 7


def test_without_the_sdk_the_error_says_what_to_install(oss_env: Any, sdk: str) -> None:
    module, wanted = {
        "oss2": ("oss2", "'mlflow-oss-artifacts'"),
        "v2": ("alibabacloud_oss_v2", "'mlflow-oss-artifacts[v2]'"),
    }[sdk]
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository\n"
        "get_artifact_repository('oss://artifacts/x').list_artifacts()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False
    )
    assert done.returncode != 0
    assert f"pip install {wanted}" in done.stderr
    assert KEY_SECRET not in done.stderr
    assert KEY_ID not in done.stderr
