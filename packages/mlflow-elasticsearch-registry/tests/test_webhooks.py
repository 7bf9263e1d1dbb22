"""Webhooks: stored without their secrets in clear, found by their events, and delivered by MLflow itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import pytest
from cryptography.fernet import Fernet
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent, WebhookStatus
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_registry import ciphers
from mlflow_elasticsearch_registry.indices import WEBHOOKS
from mlflow_plugkit_testing.stores import refused

SECRET = "s3cret-Ümläut-value"
CREATED = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)
VERSION = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A key for secrets, and leave to call this machine."""
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", key)
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("_MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    return key


@pytest.fixture
def received() -> Iterator[tuple[str, Queue[Any]]]:
    """A server that takes webhooks: its URL, and what it received as (headers, body)."""
    queue: Queue[Any] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            queue.put((dict(self.headers), body))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", queue
    server.shutdown()
    thread.join()
    server.server_close()


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Whether the request has the signature that MLflow's documentation describes."""
    signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body.decode()}"
    digest = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return headers["X-MLflow-Signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_a_secret_is_stored_encrypted_and_read_back(store: Any, key: str) -> None:
    """The document holds a Fernet token; with the key it is the secret again, also for another store."""
    made = store.create_webhook("hook", "https://127.0.0.1/x", [CREATED], "what", SECRET)
    document = store.docs.get(WEBHOOKS, made.webhook_id).source
    assert SECRET not in json.dumps(document, ensure_ascii=False)
    assert Fernet(key).decrypt(document["secret"].encode()).decode() == SECRET
    assert store.get_webhook(made.webhook_id).secret == SECRET
    store.delete_webhook(made.webhook_id)
    assert store.docs.get(WEBHOOKS, made.webhook_id).source["secret"] is None


def test_a_webhook_with_an_unknown_key_is_shown_but_not_delivered(
    store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another key can be no reason for unsigned requests, nor for the other webhooks to fail."""
    lost = store.create_webhook("lost", "https://127.0.0.1/x", [CREATED], secret=SECRET)
    plain = store.create_webhook("plain", "https://127.0.0.1/x", [CREATED])
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", Fernet.generate_key().decode())
    assert {w.name: w.secret for w in store.list_webhooks()} == {"lost": None, "plain": None}
    assert [w.webhook_id for w in store.list_webhooks_by_event(CREATED)] == [plain.webhook_id]
    assert "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY" in caplog.text
    with refused("INVALID_STATE", "testing a webhook whose secret cannot be read"):
        store.test_webhook(lost.webhook_id)
    store.update_webhook(lost.webhook_id, secret="new")
    assert store.get_webhook(lost.webhook_id).secret == "new"


def test_a_key_that_is_none_is_refused(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, and shows neither key nor secret."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "no-fernet-key")
    with pytest.raises(MlflowException) as error:
        store.create_webhook("hook", "https://127.0.0.1/x", [CREATED], secret=SECRET)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY" in str(error.value)
    assert "no-fernet-key" not in str(error.value)


def test_without_a_key_a_secret_serves_this_process(
    store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with MLflow's own store; a warning says what to set."""
    monkeypatch.delenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
    ciphers._own_cipher.cache_clear()
    made = store.create_webhook("hook", "https://127.0.0.1/x", [CREATED], secret=SECRET)
    assert store.get_webhook(made.webhook_id).secret == SECRET
    assert "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY is not set" in caplog.text


def test_an_update_changes_what_it_names(store: Any, own: Any) -> None:
    """Everything else stays; both stores answer the same."""
    for one in (own, store):
        made = one.create_webhook("hook", "https://127.0.0.1/x", [CREATED], "what", SECRET)
        one.update_webhook(made.webhook_id, status=WebhookStatus.DISABLED, events=[VERSION])
        read = one.get_webhook(made.webhook_id)
        shown = (read.name, read.url, read.description, read.secret, str(read.status), [str(e) for e in read.events])
        assert shown == ("hook", "https://127.0.0.1/x", "what", SECRET, "DISABLED", ["model_version.created"])
        assert read.last_updated_timestamp >= made.creation_timestamp
        with refused("RESOURCE_DOES_NOT_EXIST", "updating an unknown webhook"):
            one.update_webhook("none", name="x")
        with refused("RESOURCE_DOES_NOT_EXIST", "deleting an unknown webhook"):
            one.delete_webhook("none")
        for bad in ({"name": ""}, {"url": "ftp://x"}, {"events": []}):
            with refused("INVALID_PARAMETER_VALUE", f"update_webhook({bad})"):
                one.update_webhook(made.webhook_id, **bad)


def test_pages_of_an_event_hold_every_webhook_once(store: Any, new_store: Callable[..., Any]) -> None:
    """MLflow asks for all of them, page by page; another store on the URI goes on with the token."""
    made = {store.create_webhook(f"h{i}", "https://127.0.0.1/x", [CREATED, VERSION]).webhook_id for i in range(5)}
    store.create_webhook("other", "https://127.0.0.1/x", [VERSION])
    first = store.list_webhooks_by_event(CREATED, 3)
    second = new_store(store.uri).list_webhooks_by_event(CREATED, 3, first.token)
    assert {w.webhook_id for w in [*first, *second]} == made
    assert (len(first), len(second), second.token) == (3, 2, None)
    for size in (-1, 1001):
        with refused("INVALID_PARAMETER_VALUE", f"a page of {size} webhooks"):
            store.list_webhooks(size)


def test_a_webhook_of_another_process_is_listed_at_once(store: Any) -> None:
    """MLflow's server asks once a minute and worker: an answer that is a second old would be a minute old."""
    from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
    from mlflow_plugkit_elasticsearch import Documents

    other = ElasticsearchRegistryStore(store.uri)
    other.docs = Documents(store.settings)
    assert list(store.list_webhooks_by_event(CREATED)) == []
    made = other.create_webhook("hook", "https://127.0.0.1/x", [CREATED])
    assert [w.webhook_id for w in store.list_webhooks_by_event(CREATED)] == [made.webhook_id]


def test_mlflow_delivers_signed_webhooks(store: Any, received: tuple[str, Queue[Any]]) -> None:
    """`mlflow.webhooks.delivery` finds the webhook in this store, signs with its secret and sends."""
    from mlflow.webhooks import delivery

    url, queue = received
    store.create_webhook("hook", url, [CREATED], secret=SECRET)
    store.create_webhook("off", url, [CREATED], status=WebhookStatus.DISABLED)
    delivery._webhook_cache = None
    payload = {"name": "m", "tags": {}, "description": ""}
    delivery.deliver_webhook(event=CREATED, payload=payload, store=store)
    headers, body = queue.get(timeout=30)
    assert is_signed(headers, body, SECRET)
    assert json.loads(body)["data"] == payload
    assert queue.empty()


def test_a_webhook_can_be_tested(store: Any, received: tuple[str, Queue[Any]]) -> None:
    """An example of its first event, or of the one asked for, is sent; the receiver's answer is returned."""
    url, queue = received
    made = store.create_webhook("hook", url, [CREATED, VERSION], secret=SECRET)
    result = store.test_webhook(made.webhook_id)
    assert (result.success, result.response_status, result.response_body) == (True, 200, "ok")
    assert json.loads(queue.get(timeout=30)[1])["entity"] == "registered_model"
    assert store.test_webhook(made.webhook_id, VERSION).success
    assert json.loads(queue.get(timeout=30)[1])["entity"] == "model_version"
