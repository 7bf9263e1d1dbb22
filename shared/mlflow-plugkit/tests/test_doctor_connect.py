"""`doctor --connect` asks the configured services, and only then."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from seeds import environment, run_json

ANSWERS = {
    "experiments/search": {"experiments": [{"experiment_id": "7", "name": "seeded", "lifecycle_stage": "active"}]},
    "registered-models/search": {"registered_models": []},
}


class Handler(BaseHTTPRequestHandler):
    """Two endpoints of MLflow's REST API."""

    seen: list[str] = []

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append(self.path)
        body = json.dumps(next((a for path, a in ANSWERS.items() if path in self.path), {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield http
        http.shutdown()
        thread.join(10)


def test_the_services_answers_are_reported(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    env = environment(tmp_path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{server.server_port}")
    report, done = run_json(["doctor", "--connect"], env)
    answers = {c["kind"]: (c["ok"], c["answer"]) for c in report["connections"]}
    assert answers == {"tracking": (True, "experiment 'seeded'"), "registry": (True, "no registered model yet")}
    assert all(c["ms"] > 0 for c in report["connections"])
    assert any("experiments/search" in path for path in Handler.seen)
    assert report["findings"] == []
    assert done.returncode == 0


def test_a_service_that_does_not_answer_is_an_error(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    """The registry answers, the tracking server refuses; the password in its URI is not shown."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    env = environment(
        tmp_path,
        MLFLOW_TRACKING_URI=f"http://me:URISECRET@127.0.0.1:{port}",
        MLFLOW_REGISTRY_URI=f"http://127.0.0.1:{server.server_port}",
    )
    report, done = run_json(["doctor", "--connect"], env)
    assert [c["ok"] for c in report["connections"]] == [False, True]
    failed = [f for f in report["findings"] if f["id"] == "connect-fails"]
    assert [f["subject"] for f in failed] == [f"tracking http://me:***@127.0.0.1:{port}"]
    assert done.returncode == 1
    assert "URISECRET" not in done.stdout + done.stderr


def test_a_service_that_accepts_and_stays_silent_is_bounded(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    """The time limit ends a tracking server that never answers, and the registry is asked all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        registry = f"http://127.0.0.1:{server.server_port}"
        env = environment(tmp_path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", MLFLOW_REGISTRY_URI=registry)
        report, done = run_json(["doctor", "--connect", "--timeout", "5"], env)
    tracking, registry_answer = report["connections"]
    assert (tracking["ok"], registry_answer["ok"]) == (False, True), report
    assert tracking["ms"] < 10_000
    assert done.returncode == 1
