"""One server with one destination that breaks every rule, so that only one server starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from fake_distribution import write_distribution

from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.server import plugin_env

FAKES = Path(__file__).parents[1] / "fakes"

SECRET = "hunter2-printed"


class TestBrokenDestination(ProxiedArtifactsConformance):
    breaks = {
        "test_a_file_passes_through_the_server": "came back through the server with other bytes",
        "test_a_large_file_passes_through_the_server": "a large file came back with other bytes",
        "test_a_tree_passes_through_the_server": "a tree did not survive the server",
        "test_listing_through_the_server": "the server lists something else",
        "test_a_missing_artifact_is_not_found": "must be 404 RESOURCE_DOES_NOT_EXIST",
        "test_deletion_through_the_server": "is still listed",
        "test_the_server_refuses_hostile_paths": "must be refused with a 4xx answer",
        "test_stored_locations_show_no_secret": "stored artifact locations show a secret",
        "test_the_server_log_shows_no_secret": "the server's log shows a secret",
        "test_gc_deletes_the_artifacts": "left the artifacts of a deleted run",
    }
    server_options = ("--default-artifact-root", f"mlflow-artifacts:/{SECRET}")

    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls, tmp_path_factory):
        return f"broken-destination:{tmp_path_factory.mktemp('destination')}/root/{SECRET}"

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls):
        return (SECRET,)

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls, tmp_path_factory):
        point = {"mlflow.artifact_repository": {"broken-destination": "broken_destination:BrokenDestination"}}
        plugin = write_distribution(tmp_path_factory.mktemp("plugin"), "broken-destination", {}, point)
        return plugin_env([plugin, FAKES])
