"""A minimal correct dataset source passes every rule, with a constructor and without."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlflow_plugkit_testing.datasets import DatasetSourceConformance
from mlflow_plugkit_testing.recording import Answer, RecordingServer

sys.path.append(str(Path(__file__).parent / "broken"))


class TestPlainDatasets(DatasetSourceConformance):
    source_type = "plain"
    constructor_name = "from_plain"

    @property
    def source_class(self):
        from plain_datasets import PlainSource

        return PlainSource

    @property
    def constructor(self):
        from plain_datasets import from_plain

        return from_plain

    @pytest.fixture
    def raw_source(self, tmp_path):
        (tmp_path / "data.csv").write_text("a,b\n1,2\n")
        return f"plain:{tmp_path}/data.csv"

    @pytest.fixture
    def secret_source(self, raw_source):
        return f"{raw_source}?token=s3cret-token", "s3cret-token"


class TestSourceWithoutAConstructor(TestPlainDatasets):
    constructor_name = ""
    may_hold_secrets = False


class TestMlflowsOwnHttpSource(DatasetSourceConformance):
    """MLflow's source for HTTP URLs, found through MLflow's registry alone."""

    source_type = "http"
    may_hold_secrets = False
    claims = ("http://", "https://")

    @pytest.fixture
    def raw_source(self):
        with RecordingServer() as server:
            server.always(Answer(200, body=b"a,b\n1,2\n"))
            yield f"{server.uri}/data.csv"

    def check_loaded(self, loaded):
        assert Path(loaded).read_bytes() == b"a,b\n1,2\n"
