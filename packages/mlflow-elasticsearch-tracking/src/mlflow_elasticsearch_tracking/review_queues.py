"""Review queues: who is to look at which traces, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.experiments import Experiments
from mlflow_elasticsearch_tracking.filters import Clause, conjunction
from mlflow_elasticsearch_tracking.indices_genai import LABEL_SCHEMAS, REVIEW_ITEMS, REVIEW_QUEUES
from mlflow_elasticsearch_tracking.review_items import ReviewItems
from mlflow_elasticsearch_tracking.run_search import check_max_results, find
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.names import claim, handing_over, owner_of, release
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import term, terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.store.entities.paged_list import PagedList


class ReviewQueues(ReviewItems, Experiments):
    """Create, read, change and delete review queues."""

    def create_review_queue(
        self,
        experiment_id: str,
        *,
        name: str,
        queue_type: str,
        created_by: str | None = None,
        users: list[str] | None = None,
        schema_ids: list[str] | None = None,
    ) -> Any:
        """Make a queue. Names are unique within an experiment, whatever their case.

        Raises:
            MlflowException: `RESOURCE_ALREADY_EXISTS`, `INVALID_PARAMETER_VALUE`, `RESOURCE_DOES_NOT_EXIST` for no such
                active experiment.
        """
        from mlflow.genai.review_queues.validation import validate_queue_for_create

        valid = validate_queue_for_create(name=name, queue_type=queue_type, users=users, schema_ids=schema_ids)
        own_id = str(self._in_stage(experiment_id, "active")["experiment_id"])
        self._check_schemas(own_id, valid.schema_ids)
        now = now_ms()
        source: Source = {
            "queue_id": f"rq-{uuid.uuid4().hex}",
            "experiment_id": own_id,
            "name": valid.name,
            "queue_type": str(valid.queue_type),
            "created_by": created_by,
            "creation_time_ms": now,
            "last_update_time_ms": now,
            "users": sorted(valid.users),
            "schema_ids": sorted(valid.schema_ids),
            "attached": 0,
        }
        self._claim_queue_name(own_id, valid.name, source["queue_id"])
        self.docs.create(REVIEW_QUEUES, source["queue_id"], source)
        return _queue(source)

    def get_or_create_user_queue(self, experiment_id: str, *, user: str) -> Any:
        """The queue of one user, made where it is missing.

        Raises:
            MlflowException: `RESOURCE_ALREADY_EXISTS` where a custom queue has the user's name.
        """
        from mlflow.genai.review_queues.validation import normalize_user

        name = normalize_user(user)
        try:
            return self.create_review_queue(experiment_id, name=name, queue_type="user", created_by=name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        existing = self.get_review_queue_by_name(experiment_id, name=name)
        if str(existing.queue_type) != "user":
            raise mlflow_error(
                f"A non-user queue named '{name}' already exists; rename it to make one for the user.",
                "RESOURCE_ALREADY_EXISTS",
            )
        return existing

    def get_review_queue(self, queue_id: str) -> Any:
        """The queue.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        return _queue(self._queue_document(queue_id).source)

    def get_review_queue_by_name(self, experiment_id: str, *, name: str) -> Any:
        """The queue of that name, whatever its case.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        own_id = str(self._in_stage(experiment_id, "active")["experiment_id"])
        owner = owner_of(self.docs, _kind(own_id), name.lower())
        found = self.docs.get(REVIEW_QUEUES, owner) if owner else None
        if found is None:
            raise mlflow_error(
                f"Review queue with name '{name}' not found for experiment '{experiment_id}'.",
                "RESOURCE_DOES_NOT_EXIST",
            )
        return _queue(found.source)

    def list_review_queues(
        self,
        experiment_id: str,
        *,
        user: str | None = None,
        item_id: str | None = None,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Any]:
        """A page of an experiment's queues, the newest first.

        Args:
            experiment_id: the experiment.
            user: only those that this user is assigned to.
            item_id: only those that this item is attached to.
            max_results: size of the page, 1,000 unless told otherwise.
            page_token: of the page before.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`, `RESOURCE_DOES_NOT_EXIST` for no such active experiment.
        """
        from mlflow.genai.review_queues.validation import normalize_user
        from mlflow.store.entities.paged_list import PagedList

        check_max_results(max_results, optional=True)
        own_id = str(self._in_stage(experiment_id, "active")["experiment_id"])
        asked = (own_id, user, item_id)
        after = decode_token(page_token, *asked)
        clauses = [term("experiment_id", own_id)]
        if user is not None:
            clauses.append(term("users", normalize_user(user)))
        if item_id is not None:
            items = self.docs.scan(REVIEW_ITEMS, term("item_id", item_id), "queue_id", source=["queue_id"])
            clauses.append(terms("queue_id", [hit.source["queue_id"] for hit in items]))
        order = [{"creation_time_ms": "desc"}, {"queue_id": "asc"}]
        wanted = conjunction([Clause(clause) for clause in clauses])
        hits, more = find(self.docs, REVIEW_QUEUES, wanted, order, max_results or 1_000, after)
        return PagedList([_queue(hit.source) for hit in hits], encode_token(hits[-1].sort, *asked) if more else None)

    def update_review_queue(
        self,
        queue_id: str,
        *,
        users: list[str] | None = None,
        schema_ids: list[str] | None = None,
        name: str | None = None,
        new_owner: str | None = None,
    ) -> Any:
        """Change what is given of a custom queue; its questions only while no item is attached.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, `RESOURCE_ALREADY_EXISTS` for a name that the experiment has,
                `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.genai.review_queues import validation

        before = self._queue_document(queue_id).source
        if before["queue_type"] == "user":
            raise mlflow_error(
                "A user queue's name, assigned user, schemas, and owner are fixed and cannot be updated."
            )
        if users is None and schema_ids is None and name is None and new_owner is None:
            return _queue(before)
        new: Source = {"last_update_time_ms": now_ms()}
        if new_owner is not None:
            new["created_by"] = validation.validate_queue_owner(new_owner)
        if users is not None:
            new["users"] = sorted(validation.normalize_users(users))
        if schema_ids is not None:
            new["schema_ids"] = sorted(validation.normalize_schema_ids(schema_ids))
        if name is not None:
            new["name"] = validation.validate_custom_queue_name(name)
        return self._changed_queue(queue_id, before, new)

    def delete_review_queue(self, queue_id: str) -> None:
        """Delete a queue and its items; nothing happens where there is none. Reviews that were given stay."""
        found = self.docs.get(REVIEW_QUEUES, queue_id)
        if found is None:
            return
        self.docs.delete(REVIEW_QUEUES, queue_id)
        self.docs.delete_where(REVIEW_ITEMS, term("queue_id", queue_id), "item_id")
        release(self.docs, _kind(found.source["experiment_id"]), found.source["name"].lower(), queue_id)

    def _changed_queue(self, queue_id: str, before: Mapping[str, Any], new: Source) -> Any:
        experiment_id, key = before["experiment_id"], before["name"].lower()
        new_key = new.get("name", before["name"]).lower()

        def change(source: Source) -> Source:
            if "schema_ids" in new:
                if source["attached"] and self.docs.count(REVIEW_ITEMS, term("queue_id", queue_id)):
                    raise mlflow_error(
                        "A review queue's questions are locked once items are assigned to it. Remove the items before "
                        "changing its questions."
                    )
                self._check_schemas(experiment_id, new["schema_ids"])
            return source | new

        if new_key != key:
            self._claim_queue_name(experiment_id, new["name"], queue_id)
        with handing_over(self.docs, _kind(experiment_id), key, new_key, queue_id):
            changed = self.docs.update(REVIEW_QUEUES, queue_id, change, lambda: self._no_queue(queue_id))
        return _queue(changed.source)

    def _claim_queue_name(self, experiment_id: str, name: str, queue_id: str) -> None:
        def is_live(owner: str) -> bool:
            found = self.docs.get(REVIEW_QUEUES, owner)
            return found is not None and found.source["name"].lower() == name.lower()

        if claim(self.docs, _kind(experiment_id), name.lower(), queue_id, is_live) is not None:
            raise mlflow_error(
                f"Review queue with name '{name}' already exists (names are case-insensitive).",
                "RESOURCE_ALREADY_EXISTS",
            )

    def _check_schemas(self, experiment_id: str, schema_ids: Sequence[str]) -> None:
        found = self.docs.get_many(LABEL_SCHEMAS, list(schema_ids)) if schema_ids else {}
        there = {key for key, document in found.items() if document.source["experiment_id"] == experiment_id}
        if missing := [schema_id for schema_id in schema_ids if schema_id not in there]:
            raise mlflow_error(f"Label schema id(s) {missing} not found for experiment '{experiment_id}'.")


def _kind(experiment_id: str) -> str:
    return f"review-queue:{experiment_id}"


def _queue(source: Mapping[str, Any]) -> Any:
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueType

    return ReviewQueue(
        queue_id=source["queue_id"],
        experiment_id=source["experiment_id"],
        name=source["name"],
        queue_type=ReviewQueueType(source["queue_type"]),
        created_by=source["created_by"],
        creation_time_ms=source["creation_time_ms"],
        last_update_time_ms=source["last_update_time_ms"],
        users=list(source["users"]),
        schema_ids=list(source["schema_ids"]),
    )
