"""The plugin keeps the kit's rules for header providers and packaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_plugkit_testing.headers import RequestHeaderProviderConformance
from mlflow_plugkit_testing.wheels import PackagingConformance
from mlflow_request_headers.settings import VARIABLES


class TestHeadersFromAFile(RequestHeaderProviderConformance):
    entry_point_name = "request-headers"
    variables = VARIABLES

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
        file = tmp_path / "headers.toml"
        file.write_text('required = ["X-Team"]\n[headers]\nX-Team = "vision"\nX-Site = "${SITE:-Berlin}"\n')
        monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_FILE", str(file))
        return {"X-Team": "vision", "X-Site": "Berlin"}


class TestHeadersFromTheEnvironment(RequestHeaderProviderConformance):
    entry_point_name = "request-headers"
    variables = (*VARIABLES, "COST_CENTRE")

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setenv("COST_CENTRE", "4711")
        monkeypatch.setenv(
            "MLFLOW_REQUEST_HEADERS", "X-Team: vision\nX-Cost-Centre: {cost_centre}\nUser-Agent: nightly/1"
        )
        return {"X-Team": "vision", "X-Cost-Centre": "4711", "User-Agent": "nightly/1"}


class TestPackaging(PackagingConformance):
    distribution = "mlflow-request-headers"
