"""The items of review queues, each with its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import StoreBase, now_ms
from mlflow_elasticsearch_tracking.filters import Clause, conjunction
from mlflow_elasticsearch_tracking.indices_genai import REVIEW_ITEMS, REVIEW_QUEUES
from mlflow_elasticsearch_tracking.run_search import check_max_results, find
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Document, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import all_of, term, terms

if TYPE_CHECKING:
    from mlflow.store.entities.paged_list import PagedList


class ReviewItems(StoreBase):
    """Attach items to review queues, and note what became of them."""

    def add_items_to_review_queue(self, queue_id: str, *, item_ids: list[str], item_type: str = "trace") -> list[Any]:
        """Attach items, pending; those that are attached already stay as they are. All of them, in the order given.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such queue, `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.genai.review_queues.validation import coerce_item_type, validate_item_ids_for_attach

        kind, ids = str(coerce_item_type(item_type)), validate_item_ids_for_attach(item_ids)
        # Noted first, so that nobody changes the queue's questions in between.
        self.docs.update(
            REVIEW_QUEUES,
            queue_id,
            lambda source: source | {"attached": source["attached"] + len(ids)},
            lambda: self._no_queue(queue_id),
        )
        now = now_ms()
        new: Source = {
            "queue_id": queue_id,
            "item_type": kind,
            "status": "pending",
            "creation_time_ms": now,
            "last_update_time_ms": now,
            "completed_by": None,
            "completed_time_ms": None,
        }
        bulk(self.docs, [Action("create", REVIEW_ITEMS, _key(queue_id, one), new | {"item_id": one}) for one in ids])
        found = self.docs.get_many(REVIEW_ITEMS, [_key(queue_id, one) for one in ids])
        return [_item(document.source) for document in found.values()]

    def remove_items_from_review_queue(self, queue_id: str, *, item_ids: list[str]) -> None:
        """Detach items; nothing happens for those that are not attached.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such queue, `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.genai.review_queues.validation import validate_item_ids_for_attach

        ids = validate_item_ids_for_attach(item_ids)
        self._queue_document(queue_id)
        bulk(self.docs, [Action("delete", REVIEW_ITEMS, _key(queue_id, one)) for one in ids])

    def list_review_queue_items(
        self, queue_id: str, *, status: Any = None, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Any]:
        """A page of a queue's items, the newest first.

        Args:
            queue_id: the queue.
            status: only those in this status.
            max_results: size of the page, 1,000 unless told otherwise.
            page_token: of the page before.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such queue, `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.genai.review_queues.validation import coerce_status
        from mlflow.store.entities.paged_list import PagedList

        check_max_results(max_results, optional=True)
        asked = (queue_id, str(coerce_status(status)) if status is not None else None)
        after = decode_token(page_token, *asked)
        self._queue_document(queue_id)
        clauses = [term("queue_id", queue_id), *([term("status", asked[1])] if asked[1] else [])]
        wanted = conjunction([Clause(clause) for clause in clauses])
        order = [{"creation_time_ms": "desc"}, {"item_id": "asc"}]
        hits, more = find(self.docs, REVIEW_ITEMS, wanted, order, max_results or 1_000, after)
        return PagedList([_item(hit.source) for hit in hits], encode_token(hits[-1].sort, *asked) if more else None)

    def set_review_queue_item_status(
        self, queue_id: str, *, item_id: str, status: Any, completed_by: str | None = None
    ) -> Any:
        """Complete, decline or reopen an item. To set the status that it has changes nothing.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such queue or item, `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.genai.review_queues.validation import coerce_status, normalize_item_id

        new, item = str(coerce_status(status)), normalize_item_id(item_id)
        user = _completed_by(new, completed_by)
        self._queue_document(queue_id)

        def change(source: Source) -> Source | None:
            if source["status"] == new:
                return None
            now = now_ms()
            done = {"completed_by": user, "completed_time_ms": None if new == "pending" else now}
            return source | {"status": new, "last_update_time_ms": now} | done

        missing = mlflow_error(
            f"Item '{item}' is not attached to review queue '{queue_id}'.", "RESOURCE_DOES_NOT_EXIST"
        )
        return _item(self.docs.update(REVIEW_ITEMS, _key(queue_id, item), change, lambda: missing).source)

    def _forget_reviewed_traces(self, trace_ids: Sequence[str]) -> None:
        """Detach traces that are being deleted from all queues: a review of them could not be stored any more."""
        query = all_of([term("item_type", "trace"), terms("item_id", list(trace_ids))])
        found = [Action("delete", REVIEW_ITEMS, hit.id) for hit in self._items(query)]
        if found:
            bulk(self.docs, found)

    def _items(self, query: dict[str, Any]) -> list[Any]:
        order = [{"queue_id": "asc"}, {"item_id": "asc"}]
        return find(self.docs, REVIEW_ITEMS, conjunction([Clause(query)]), order, None, None)[0]

    def _queue_document(self, queue_id: str) -> Document:
        found = self.docs.get(REVIEW_QUEUES, queue_id)
        if found is None:
            raise self._no_queue(queue_id)
        return found

    def _no_queue(self, queue_id: str) -> Exception:
        return mlflow_error(f"Review queue with id '{queue_id}' not found.", "RESOURCE_DOES_NOT_EXIST")


def _key(queue_id: str, item_id: str) -> str:
    return document_id("review", queue_id, item_id)


def _completed_by(status: str, completed_by: str | None) -> str | None:
    from mlflow.genai.review_queues.validation import USER_MAX_LENGTH, normalize_user

    user = normalize_user(completed_by) if completed_by is not None else None
    if status == "pending":
        if user is not None:
            raise mlflow_error("`completed_by` must not be set when reopening an item to `pending`.")
        return None
    if not user:
        raise mlflow_error(f"`completed_by` is required when setting status to `{status}`.")
    if len(user) > USER_MAX_LENGTH:
        raise mlflow_error(f"`completed_by` must be at most {USER_MAX_LENGTH} characters; got {len(user)}.")
    return str(user)


def _item(source: Mapping[str, Any]) -> Any:
    from mlflow.genai.review_queues import ReviewItemType, ReviewQueueItem, ReviewStatus

    return ReviewQueueItem(
        queue_id=source["queue_id"],
        item_type=ReviewItemType(source["item_type"]),
        item_id=source["item_id"],
        status=ReviewStatus(source["status"]),
        creation_time_ms=source["creation_time_ms"],
        last_update_time_ms=source["last_update_time_ms"],
        completed_by=source["completed_by"],
        completed_time_ms=source["completed_time_ms"],
    )
