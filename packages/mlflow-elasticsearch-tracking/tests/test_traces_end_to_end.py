"""Traces by MLflow's public functions, on the store itself and through a real server, and OpenTelemetry's export."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Span
from mlflow.store.tracking.abstract_store import AbstractStore

from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.server import MlflowServer, fresh_database, plugin_env

SECONDS = 180
EXPORT = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.fixture(params=["direct", "server"])
def place(request: pytest.FixtureRequest, prefixes: Prefixes, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The tracking URI, and the URL to export to ("-" without a server)."""
    uri = prefixes.fresh_uri()
    prefixes.opened(uri, request)
    if request.param == "direct":
        yield uri, "-"
    else:
        options = ["--backend-store-uri", uri, "--registry-store-uri", fresh_database(tmp_path, "models.db")]
        root = ["--default-artifact-root", (tmp_path / "artifacts").as_uri(), "--workers", "2"]
        with MlflowServer([*options, *root], folder=tmp_path) as server:
            yield server.url, server.url
    prefixes.closed(request)


@pytest.fixture
def facts(place: tuple[str, str], tmp_path: Path) -> dict[str, Any]:
    """What the workflow read back."""
    if place[1] != "-":
        pytest.importorskip(EXPORT, reason="the export needs opentelemetry-exporter-otlp-proto-http")
    script = Path(__file__).with_name("traces_workflow.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *place],
        cwd=tmp_path, env=plugin_env(), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6_000:]
    read: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return read


def test_traces_are_logged_found_assessed_and_deleted(facts: dict[str, Any]) -> None:
    """Decorated functions, searches, feedback, runs, tags, deletion; spans over OTLP where there is a server."""
    traced = facts["traced"]
    assert [tuple(s) for s in traced["spans"]] == [
        ("agent", "AGENT", True),
        ("look_up", "RETRIEVER", False),
        ("say", "CHAT_MODEL", False),
    ]
    assert traced["outputs"] == "I read 1 pages, größer als zuvor"
    assert traced["tokens"]["total_tokens"] == 15
    assert (traced["tags"], traced["states"], traced["event"]) == ("blue", ["OK", "ERROR"], ["exception"])
    assert list(facts["found"]["counts"].values()) == [1, 2, 1, 1, 0, 2], facts["found"]
    assert [state.rsplit(".")[-1] for state in facts["found"]["frame"]] == ["ERROR", "OK"]
    assert sorted(v[:2] for v in facts["assessed"]["feedback"]) == [[False, False], [True, True]]
    assert facts["assessed"]["expected"] == ["ja"]
    if hasattr(AbstractStore, "archive_traces"):
        assert facts["assessed"]["found"] == 1
    assert facts["linked"] == {"of run": 1, "seen": 1, "gone": 1, "left": 2}
    if "exported" in facts:
        assert facts["exported"] == {
            "spans": ["checkout", "pay"],
            "service": "shop" if "resource" in inspect.signature(Span.from_otel_proto).parameters else None,
            "tokens": 9,
            "who": ["s-9", "ada"],
            "state": "OK",
        }
