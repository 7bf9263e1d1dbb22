"""The helper starts a real server and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import sys
import time

import pytest
import requests

from mlflow_plugkit_testing import server as server_module
from mlflow_plugkit_testing.server import MlflowServer, ServerError, free_port, plugin_env


def group_is_gone(group: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_server_starts_on_another_port_when_its_port_was_taken_and_stops_with_its_workers(tmp_path, monkeypatch):
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        taken = occupant.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(server_module, "free_port", lambda: next(ports, None) or free_port())
        with MlflowServer(["--workers", "2"], folder=tmp_path) as server:
            group = server.process.pid
            assert str(taken) not in server.url
            assert requests.get(f"{server.url}/health", timeout=10).text == "OK"
            assert server.log_path.parent == tmp_path
        assert group_is_gone(group, 10), "processes of the server are still there"
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{server.url}/health", timeout=2)


def test_a_server_that_ends_early_shows_its_log(tmp_path):
    server = MlflowServer(["--backend-store-uri", "no-such-scheme://user:hunter2@host"], folder=tmp_path)
    with pytest.raises(ServerError, match=r"before it was ready(.|\n)*no-such-scheme") as error:
        server.start()
    assert "hunter2" not in str(error.value), "passwords in URIs are redacted"
    assert server.process is None


def test_a_server_that_is_never_ready_is_ended_at_the_deadline(tmp_path):
    server = MlflowServer(folder=tmp_path, ready=lambda url: False, deadline=1)
    with pytest.raises(ServerError, match="was not ready after 1 seconds"):
        server.start()
    assert server.process is None


def test_the_environment_puts_the_plugin_first_and_drops_a_servers_own_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "left-over")
    env = plugin_env([tmp_path], {"MY_OPTION": "1"})
    assert env["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "before"]
    assert "_MLFLOW_SERVER_ARTIFACT_ROOT" not in env
    assert env["MY_OPTION"] == "1"
    assert sys.executable
