"""A server connects to its own artifact storage and to listed hosts; a client to any."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.hosts import ALLOWED_VARIABLE, check_uri, endpoint_of
from mlflow_plugkit_testing.artifacts_base import outcome

PORTS = {"s3+https": 443, "s3+http": 80}
OWN = "s3+https://store.example:9000/bucket/root"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", OWN)


def refused(uri: str) -> bool:
    code = outcome(lambda: check_uri(uri, PORTS))
    assert code in ("accepted", "PERMISSION_DENIED")
    return code != "accepted"


def test_a_client_connects_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("_MLFLOW_SERVER_ARTIFACT_ROOT", raising=False)
    assert not refused("s3+https://anywhere.example/bucket")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3+https://store.example:9000/other/prefix", True),
        ("s3+https://STORE.example:9000/bucket", True),
        ("s3+https://store.example.:9000/bucket", True),
        ("s3+https://user:pass@store.example:9000/bucket", True),
        ("s3+https://store.example/bucket", False),
        ("s3+http://store.example:9000/bucket", False),
        ("s3+https://store.example:9001/bucket", False),
        ("s3+https://store.example:9000@evil.example/bucket", False),
        ("s3+https://store.example.evil.example:9000/bucket", False),
        ("s3+http://169.254.169.254/latest", False),
        ("s3+http:///bucket", False),
    ],
)
def test_a_server_connects_only_to_its_own_endpoint(uri: str, allowed: bool) -> None:
    assert refused(uri) != allowed


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("entry", "uri", "allowed"),
    [
        ("minio.example", "s3+https://minio.example/b", True),
        ("minio.example", "s3+http://minio.example:9000/b", True),
        ("minio.example:443", "s3+https://minio.example/b", True),
        ("minio.example:443", "s3+http://minio.example/b", False),
        ("s3+https://minio.example", "s3+https://minio.example:1/b", True),
        ("s3+https://minio.example", "s3+http://minio.example:1/b", False),
        ("*.cloud.example", "s3+https://a.cloud.example/b", True),
        ("*.cloud.example", "s3+https://cloud.example/b", False),
        ("other.example, MINIO.example", "s3+https://minio.example/b", True),
        ("[::1]:9000", "s3+http://[::1]:9000/b", True),
        ("::1", "s3+http://[::1]:9000/b", True),
        ("", "s3+https://minio.example/b", False),
    ],
)
def test_the_operator_allows_further_hosts(
    monkeypatch: pytest.MonkeyPatch, entry: str, uri: str, allowed: bool
) -> None:
    monkeypatch.setenv(ALLOWED_VARIABLE, entry)
    assert refused(uri) != allowed


@pytest.mark.usefixtures("server")
def test_a_refusal_says_which_variable_to_set() -> None:
    with pytest.raises(MlflowException, match=f"{ALLOWED_VARIABLE}=evil.example"):
        check_uri("s3+https://evil.example/bucket", PORTS)


@pytest.mark.usefixtures("server")
def test_a_host_that_parsers_read_differently_is_refused() -> None:
    """HTTP clients end the host at a backslash, `urlsplit` does not."""
    with pytest.raises(MlflowException):
        check_uri("s3+https://store.example:9000\\@evil.example/bucket", PORTS)
    with pytest.raises(MlflowException):
        check_uri("s3+https://evil.example\\.store.example:9000/bucket", PORTS)


def test_the_default_port_is_that_of_the_scheme() -> None:
    assert endpoint_of("s3+https://a.example/b", PORTS).port == 443
    assert str(endpoint_of("s3+http://[::1]/b", PORTS)) == "s3+http://[::1]:80"


@pytest.mark.usefixtures("server")
def test_a_refusal_shows_no_password() -> None:
    with pytest.raises(MlflowException) as caught:
        check_uri("s3+https://user:pass-9Zq@evil.example/bucket", PORTS)
    assert "pass-9Zq" not in str(caught.value)
