"""A whole life at DEBUG, in a process of its own: no credential is in a log line, a repr, an error or a URI."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

LIFE = """
import logging, os, pickle, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
sys.path.insert(0, sys.argv[2])
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings, Action, bulk
from mlflow_plugkit_elasticsearch.client import Cluster
from things import THINGS

def show(*things):
    for thing in things:
        print(repr(thing), str(thing))

def attempt(call):
    try:
        show(call())
    except Exception:
        traceback.print_exc()
        logging.exception("it went wrong")

settings = ElasticsearchSettings.from_uri(sys.argv[1])
docs = Documents.of(settings)
show(settings, settings.uri, settings.location, settings.urls, docs, docs.cluster, docs.schema, vars(docs))
attempt(lambda: docs.create(THINGS, "x", {"number": 1}))
attempt(lambda: docs.update(THINGS, "x", lambda s: s | {"number": 2}))
attempt(lambda: docs.count(THINGS, {"nonsense": {}}))
attempt(lambda: bulk(docs, [Action("index", THINGS, "y", {"number": "none"})]))
attempt(lambda: docs.create(THINGS, "x", {"number": 1}))
show(docs.cluster.client, docs.cluster.client.transport, list(docs.cluster.client.transport.node_pool.all()))
os.environ["MLFLOW_ELASTICSEARCH_RETRY_FOR"] = "0.3"
attempt(lambda: Documents(ElasticsearchSettings.from_uri("elasticsearch://127.0.0.1:1/p")).get(THINGS, "x"))
attempt(lambda: ElasticsearchSettings.from_uri("elasticsearch://h/UPPER?tls=maybe"))
attempt(lambda: ElasticsearchSettings.from_uri(sys.argv[1] + "?api_key=" + sys.argv[3]))
attempt(lambda: ElasticsearchSettings.from_uri("elasticsearch://u:" + sys.argv[3] + "@h:port/p"))
os.environ["MLFLOW_ELASTICSEARCH_TLS"] = "true"
attempt(lambda: Documents(ElasticsearchSettings.from_uri(sys.argv[1])).get(THINGS, "x"))
print("the end")
"""
SECRET = "Geheim/4711+äß&x"


@pytest.mark.parametrize("kind", ["api_key", "bearer_token", "password", "file"])
def test_no_credential_is_shown(uri: str, tmp_path: Path, kind: str) -> None:
    """Neither as it is set, nor as it is sent, nor percent-encoded."""
    secret = SECRET if kind == "password" else "Z2VoZWltLTQ3MTEtZ2VoZWlt"
    names = {"password": {"USERNAME": "user", "PASSWORD": secret}, "file": {"API_KEY_FILE": str(tmp_path / "key")}}
    (tmp_path / "key").write_text(secret)
    given = names.get(kind, {kind.upper(): secret})
    environ = {**os.environ, **{f"MLFLOW_ELASTICSEARCH_{name}": value for name, value in given.items()}}
    done = subprocess.run(
        [sys.executable, "-c", LIFE, uri, str(Path(__file__).parent), secret],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert "the end" in shown, shown[-3000:]
    assert "DEBUG" in shown
    assert "MlflowException" in shown
    sent = base64.b64encode(f"user:{secret}".encode()).decode()
    for form in (secret, sent, "Geheim%2F4711", "Geheim/4711"):
        assert form not in shown, shown[max(0, shown.find(form) - 500) : shown.find(form) + 100]
