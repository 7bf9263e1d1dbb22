"""A minimal correct artifact repository keeps every rule behind a real server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
from fake_distribution import write_distribution
from folder_artifacts import ENDPOINT, TOKEN, object_server

from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.server import plugin_env

FAKES = Path(__file__).parent / "fakes"

SECRET = "hunter2-of-the-destination"


class TestFolderBehindTheServer(ProxiedArtifactsConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls, tmp_path_factory):
        return f"good-folder:{tmp_path_factory.mktemp('destination')}/root"

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls):
        return (SECRET,)

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, tmp_path_factory):
        point = {"mlflow.artifact_repository": {"good-folder": "folder_artifacts:FullRepository"}}
        plugin = write_distribution(tmp_path_factory.mktemp("plugin"), "good-folder", {}, point)
        with object_server() as url:
            yield plugin_env([plugin, FAKES], {TOKEN: SECRET, ENDPOINT: url})
