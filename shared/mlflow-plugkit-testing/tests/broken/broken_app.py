"""One app that breaks every rule, so that few servers start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from fake_distribution import write_distribution

from mlflow_plugkit_testing.app import AppConformance
from mlflow_plugkit_testing.server import plugin_env

FAKES = Path(__file__).parents[1] / "fakes"


class TestBrokenApp(AppConformance):
    breaks = {
        "test_the_server_is_healthy": "/health must answer 200 OK",
        "test_the_version_is_served": "/version must answer",
        "test_the_ui_is_served": "the UI's page is not served",
        "test_the_rest_api_is_served": "experiments/search fails",
        "test_errors_stay_json": "an error must stay JSON",
        "test_streams_pass_whole": "a streamed file came back with other bytes",
        "test_every_route_passes_through_the_app": "routes that bypass the app",
        "test_the_static_prefix_is_honoured": "do not answer below --static-prefix",
        "test_other_scopes_do_not_crash": "ASGI scopes other than HTTP are not handled",
        "test_client_credentials_stay_out_of_the_log": "a client's credential stands in the log",
    }
    app_name = "plugkit-broken"

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, tmp_path_factory):
        point = {"mlflow.app": {"plugkit-broken": "broken_server_app:create_app"}}
        return plugin_env([write_distribution(tmp_path_factory.mktemp("plugin"), "broken-app", {}, point), FAKES])

    def check_app_behaviour(self, response):
        assert "X-Plugkit-App" in response.headers, "the header is missing"
