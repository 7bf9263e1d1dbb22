"""Artifact repositories over HTTP that do the wrong thing when the connection breaks."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from http_artifacts import SCHEME, HttpRepository, http_artifact_server

from mlflow_plugkit_testing.artifacts_faults import ArtifactFaultConformance


class Broken(ArtifactFaultConformance):
    factory = HttpRepository
    large_file_size = 256 * 1024

    @pytest.fixture(scope="module")
    def port(self):
        with http_artifact_server() as port:
            yield port

    @pytest.fixture
    def upstream(self, port):
        return "127.0.0.1", port

    @pytest.fixture
    def artifact_uri(self, port):
        return f"{SCHEME}http://127.0.0.1:{port}/{uuid.uuid4().hex}"

    @pytest.fixture
    def direct(self, artifact_uri):
        return HttpRepository(artifact_uri)

    @pytest.fixture
    def faulty(self, direct, port, proxy):
        return self.factory(f"{SCHEME}{direct.url.replace(f':{port}/', f':{proxy.port}/')}")


class TestGivesUp(Broken):
    breaks = {"test_upload_meets_a_passing_fault": "gives up after a single"}

    class factory(HttpRepository):
        attempts = 1


class TestTrustsTheWire(Broken):
    breaks = {
        "test_download_meets_a_passing_fault": "a damaged download stands under its name",
        "test_download_meets_a_lasting_fault": "a damaged download stands under its name",
    }

    class factory(HttpRepository):
        def is_sound(self, answer):
            return True


class TestHearsNoErrors(Broken):
    breaks = {
        "test_upload_meets_a_lasting_fault": "the upload reports success, but the server holds",
        "test_listing_meets_a_passing_fault": "the listing reports success, but shows",
        "test_listing_meets_a_lasting_fault": "the listing reports success, but shows",
        "test_deletion_meets_a_passing_fault": "the deletion reports success, but",
    }

    class factory(HttpRepository):
        attempts = 1

        def request(self, *args, **kwargs):
            try:
                return super().request(*args, **kwargs)
            except MlflowException:
                return b"{}"


class TestShowsItsClient(Broken):
    breaks = {"test_deletion_meets_a_lasting_fault": "ended in an error of another kind"}

    class factory(HttpRepository):
        def request(self, method, path, data=None, headers=None):
            answer = requests.request(method, f"{self.url}/{path}", data=data, headers=headers, timeout=10)
            answer.raise_for_status()
            return answer.content
