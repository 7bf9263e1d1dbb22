"""A clean environment for each test, and the servers that many tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from real_kdc import Kdc
from real_oidc import SECRET, OidcProvider

from mlflow_plugkit_testing.auth import without_credentials  # the line above makes the next importable
from mlflow_plugkit_testing.recording import RecordingServer
from mlflow_request_auth import selection


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No credentials or settings of the machine, token files in the test's own folder, short patience."""
    without_credentials(monkeypatch, tmp_path)
    for name in [n for n in os.environ if n.startswith(("MLFLOW_AUTH_", "KRB5"))]:
        monkeypatch.delenv(name)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_AUTH_CACHE_DIR", str(tmp_path / "tokens"))
    monkeypatch.setenv("MLFLOW_AUTH_PATIENCE", "2")
    selection.forget()
    yield
    selection.forget()


@pytest.fixture(scope="session")
def oidc() -> Iterator[OidcProvider]:
    with OidcProvider() as provider:
        yield provider


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingServer]:
    """A recording server that is the tracking server."""
    with RecordingServer() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


@pytest.fixture
def service(oidc: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> OidcProvider:
    """MLFLOW_TRACKING_AUTH=oauth2 with client credentials."""
    for name, value in {
        "MLFLOW_TRACKING_AUTH": "oauth2",
        "MLFLOW_AUTH_ISSUER": oidc.issuer,
        "MLFLOW_AUTH_CLIENT_ID": "service",
        "MLFLOW_AUTH_CLIENT_SECRET": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    return oidc


@pytest.fixture(scope="session")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        yield kdc
