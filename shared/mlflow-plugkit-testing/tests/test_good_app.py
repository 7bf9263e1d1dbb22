"""A minimal correct server app keeps every rule."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
from fake_distribution import write_distribution

from mlflow_plugkit_testing.app import AppConformance
from mlflow_plugkit_testing.server import plugin_env

FAKES = Path(__file__).parent / "fakes"


class TestGoodApp(AppConformance):
    app_name = "plugkit-good"

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, tmp_path_factory):
        point = {"mlflow.app": {"plugkit-good": "good_app:create_app"}}
        return plugin_env([write_distribution(tmp_path_factory.mktemp("plugin"), "good-app", {}, point), FAKES])

    def check_app_behaviour(self, response):
        assert response.headers.get("X-Plugkit-App") == "good", "the header is missing"
