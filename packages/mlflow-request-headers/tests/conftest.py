"""What the tests share: a configuration file to write, and MLflow's client asking a recording server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_plugkit_testing.auth import without_credentials
from mlflow_plugkit_testing.providers import registered_provider
from mlflow_plugkit_testing.recording import RecordedRequest, RecordingServer
from mlflow_request_headers.plugin import RequestHeaders
from mlflow_request_headers.settings import VARIABLES


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_credentials(monkeypatch, tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write the configuration file and name it in the environment."""

    def write(text: str, name: str = "headers.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_FILE", str(path))
        return path

    return write


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def provider() -> Iterator[object]:
    """A new provider, registered with MLflow."""
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry

    provider = RequestHeaders()
    with registered_provider(registry, RequestHeaders, provider):
        yield provider


@pytest.fixture
def sent(provider: object, server: RecordingServer) -> Callable[..., RecordedRequest]:
    """Make MLflow's client send a request; returns what arrived."""

    def sent(uri: str | None = None) -> RecordedRequest:
        mlflow.MlflowClient(tracking_uri=uri or server.uri).search_experiments()
        return server.requests[-1]

    return sent
