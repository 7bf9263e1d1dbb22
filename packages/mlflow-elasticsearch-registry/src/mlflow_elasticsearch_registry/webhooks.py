"""Webhooks. MLflow's server delivers them (mlflow.webhooks.delivery) and asks for those of an event at each write."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from mlflow.entities.webhook import (
    Webhook,
    WebhookAction,
    WebhookEntity,
    WebhookEvent,
    WebhookStatus,
    WebhookTestResult,
)
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.validation import _validate_webhook_events, _validate_webhook_name, _validate_webhook_url

from mlflow_elasticsearch_registry.base import RegistryBase, now_ms
from mlflow_elasticsearch_registry.ciphers import KEY_VARIABLE, decrypt, encrypt
from mlflow_elasticsearch_registry.indices import WEBHOOKS
from mlflow_elasticsearch_registry.records import Source
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import Query, all_of, none_of, term

_PAGE, _LARGEST_PAGE = 100, 1000
_ORDER: list[Query] = [{"creation_time": "desc"}, {"webhook_id": "asc"}]
_logger = get_logger("mlflow_elasticsearch_registry")


class Webhooks(RegistryBase):
    """Create, read, change, list, delete and test webhooks.

    A secret is stored encrypted. Where this process has another key than the one that encrypted it, a webhook is
    shown without its secret and is not delivered: an unsigned request would be worse.
    """

    def create_webhook(
        self,
        name: str,
        url: str,
        events: list[WebhookEvent],
        description: str | None = None,
        secret: str | None = None,
        status: WebhookStatus | None = None,
    ) -> Webhook:
        """Create a webhook."""
        _validate_webhook_name(name)
        _validate_webhook_url(url)
        _validate_webhook_events(events)
        at = now_ms()
        source: Source = {
            "webhook_id": str(uuid.uuid4()),
            "name": name,
            "url": url,
            "events": _texts(events),
            "description": description,
            "secret": None if secret is None else encrypt(secret),
            "status": (status or WebhookStatus.ACTIVE).value,
            "creation_time": at,
            "last_updated_time": at,
        }
        self.docs.create(WEBHOOKS, source["webhook_id"], source)
        return _webhook(source)

    def get_webhook(self, webhook_id: str) -> Webhook:
        """The webhook of this id."""
        return _webhook(self._webhook(webhook_id))

    def list_webhooks(self, max_results: int | None = None, page_token: str | None = None) -> PagedList[Webhook]:
        """All webhooks, the newest first."""
        hits, token = self._webhooks([], max_results, page_token, "all")
        return PagedList([_webhook(source) for source in hits], token)

    def list_webhooks_by_event(
        self, event: WebhookEvent, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Webhook]:
        """The webhooks that want an event and can be signed, the newest first."""
        hits, token = self._webhooks([term("events", str(event))], max_results, page_token, str(event))
        return PagedList([_webhook(source) for source in hits if _is_deliverable(source)], token)

    def update_webhook(
        self,
        webhook_id: str,
        name: str | None = None,
        description: str | None = None,
        url: str | None = None,
        events: list[WebhookEvent] | None = None,
        secret: str | None = None,
        status: WebhookStatus | None = None,
    ) -> Webhook:
        """Change what is given of a webhook."""
        self._webhook(webhook_id)
        new: Source = {"last_updated_time": now_ms()}
        if name is not None:
            _validate_webhook_name(name)
            new["name"] = name
        if url is not None:
            _validate_webhook_url(url)
            new["url"] = url
        if events is not None:
            _validate_webhook_events(events)
            new["events"] = _texts(events)
        if description is not None:
            new["description"] = description
        if secret is not None:
            new["secret"] = encrypt(secret)
        if status is not None:
            new["status"] = status.value
        return _webhook(self._change_webhook(webhook_id, new))

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook; its secret is forgotten."""
        self._change_webhook(webhook_id, {"is_deleted": True, "secret": None, "last_updated_time": now_ms()})

    def test_webhook(self, webhook_id: str, event: WebhookEvent | None = None) -> WebhookTestResult:
        """Send an example of an event, by default of the webhook's first one, as MLflow's server does.

        Raises:
            MlflowException: `INVALID_STATE` where the secret cannot be read; see `ciphers`.
        """
        from mlflow.webhooks.delivery import test_webhook

        source = self._webhook(webhook_id)
        if not _is_deliverable(source):
            raise mlflow_error(_unreadable(source), "INVALID_STATE")
        return test_webhook(_webhook(source), event)

    def _webhook(self, webhook_id: str) -> Source:
        found = self.docs.get(WEBHOOKS, webhook_id)
        if found is None or found.source.get("is_deleted"):
            raise _missing(webhook_id)
        return found.source

    def _change_webhook(self, webhook_id: str, new: Source) -> Source:
        def change(source: Source) -> Source:
            if source.get("is_deleted"):
                raise _missing(webhook_id)
            return source | new

        return self.docs.update(WEBHOOKS, webhook_id, change, lambda: _missing(webhook_id)).source

    def _webhooks(
        self, wanted: list[Query], max_results: int | None, page_token: str | None, asked: str
    ) -> tuple[list[Source], str | None]:
        size = max_results or _PAGE
        if not 1 <= size <= _LARGEST_PAGE:
            raise mlflow_error(f"max_results must be between 1 and {_LARGEST_PAGE}.")
        after = decode_token(page_token, WEBHOOKS.name, asked)
        query = all_of([none_of([term("is_deleted", True)]), *wanted])
        # MLflow keeps the answer for a minute: what another server has just made belongs into it.
        self.docs.written(WEBHOOKS)
        hits = self.docs.page(WEBHOOKS, query, _ORDER, size + 1, after=after)
        token = encode_token(hits[size - 1].sort, WEBHOOKS.name, asked) if len(hits) > size else None
        return [hit.source for hit in hits[:size]], token


def _webhook(source: Source) -> Webhook:
    secret = source["secret"]
    return Webhook(
        webhook_id=source["webhook_id"],
        name=source["name"],
        url=source["url"],
        events=[_event(text) for text in source["events"]],
        creation_timestamp=source["creation_time"],
        last_updated_timestamp=source["last_updated_time"],
        description=source["description"],
        status=WebhookStatus(source["status"]),
        secret=None if secret is None else decrypt(secret),
    )


def _is_deliverable(source: Source) -> bool:
    if source["secret"] is None or decrypt(source["secret"]) is not None:
        return True
    _logger.error("%s", _unreadable(source))
    return False


def _unreadable(source: Source) -> str:
    return (
        f"The secret of webhook {source['name']!r} was encrypted with another key, and it is not delivered. "
        f"Set {KEY_VARIABLE} to that key, or give the webhook its secret anew."
    )


def _texts(events: Sequence[WebhookEvent]) -> list[str]:
    return list(dict.fromkeys(str(event) for event in events))


def _event(text: str) -> Any:
    entity, _, action = text.partition(".")
    return WebhookEvent(WebhookEntity(entity), WebhookAction(action))


def _missing(webhook_id: str) -> Exception:
    return mlflow_error(f"Webhook with ID {webhook_id} not found.", "RESOURCE_DOES_NOT_EXIST")
