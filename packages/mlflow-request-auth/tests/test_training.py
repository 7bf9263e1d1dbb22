"""Training goes on while tokens of five seconds come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_oidc import OidcProvider
from training import CheckingProxy, train

from mlflow_plugkit_testing.server import MlflowServer

SECONDS = 13.0


@pytest.mark.slow
def test_no_call_is_lost_with_tokens_of_five_seconds(
    service: OidcProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real `mlflow server` behind a proxy that checks each token to the second."""
    monkeypatch.setenv("MLFLOW_AUTH_RESOURCE", "urn:jwt:mlflow:5s")
    monkeypatch.setenv("MLFLOW_AUTH_PATIENCE", "30")
    before = service.grants("service")
    options = ["--serve-artifacts", "--artifacts-destination", str(tmp_path / "artifacts")]
    with (
        MlflowServer(options, folder=tmp_path) as server,
        CheckingProxy(server.url, service.issuer) as proxy,
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        report = train(SECONDS)
    assert report.failures == []
    assert report.arrived == report.sent > 20
    assert report.files_arrived == report.files_sent > 0
    renewals = service.grants("service") - before
    assert renewals >= 3
    assert renewals <= SECONDS, "tokens were got far more often than their life asks for"
    assert len(proxy.tokens) <= renewals
