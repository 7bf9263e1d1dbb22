"""Label schemas: the questions that reviewers answer about traces."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.filters import Clause, conjunction
from mlflow_elasticsearch_tracking.indices_genai import LABEL_SCHEMAS
from mlflow_elasticsearch_tracking.review_queues import ReviewQueues
from mlflow_elasticsearch_tracking.run_search import check_max_results, find
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.names import claim, handing_over, owner_of, release
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import term

if TYPE_CHECKING:
    from mlflow.store.entities.paged_list import PagedList

#: MLflow's classes of inputs, by the name under which they are stored.
_INPUTS = {
    "pass_fail": "InputPassFail",
    "categorical": "InputCategorical",
    "numeric": "InputNumeric",
    "text": "InputText",
}


class Labelling(ReviewQueues):
    """Label schemas and review queues."""

    def create_label_schema(
        self,
        experiment_id: str,
        *,
        name: str,
        type: Any,  # noqa: A002 # MLflow's name
        input: Any,  # noqa: A002 # MLflow's name
        instruction: str | None = None,
        enable_comment: bool = False,
    ) -> Any:
        """Make a label schema.

        Raises:
            MlflowException: `RESOURCE_ALREADY_EXISTS` for a name that the experiment has, `INVALID_PARAMETER_VALUE`,
                `RESOURCE_DOES_NOT_EXIST` for no such active experiment.
        """
        from mlflow.genai.label_schemas.validation import validate_schema_for_create

        validate_schema_for_create(
            name=name, type=type, input=input, instruction=instruction, enable_comment=enable_comment
        )
        own_id = str(self._in_stage(experiment_id, "active")["experiment_id"])
        source = _new_schema(own_id, name, str(type), input, instruction, enable_comment=enable_comment)
        self._claim_schema_name(own_id, name, source["schema_id"])
        self.docs.create(LABEL_SCHEMAS, source["schema_id"], source)
        return _schema(source)

    def get_label_schema(self, schema_id: str) -> Any:
        """The label schema.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        found = self.docs.get(LABEL_SCHEMAS, schema_id)
        if found is None:
            raise _missing(schema_id)
        return _schema(found.source)

    def get_label_schema_by_name(self, experiment_id: str, name: str) -> Any:
        """The label schema of that name.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        own_id = str(self._in_stage(experiment_id, "active")["experiment_id"])
        owner = owner_of(self.docs, _kind(own_id), name)
        found = self.docs.get(LABEL_SCHEMAS, owner) if owner else None
        if found is None:
            raise mlflow_error(
                f"Label schema with name '{name}' not found for experiment '{experiment_id}'.",
                "RESOURCE_DOES_NOT_EXIST",
            )
        return _schema(found.source)

    def list_label_schemas(
        self, experiment_id: str, max_results: int = 100, page_token: str | None = None
    ) -> PagedList[Any]:
        """A page of an experiment's label schemas, the newest first; MLflow's default question is one of them.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`, `RESOURCE_DOES_NOT_EXIST` for no such active experiment.
        """
        from mlflow.store.entities.paged_list import PagedList

        check_max_results(max_results)
        own_id = str(self._in_stage(experiment_id, "active")["experiment_id"])
        after = decode_token(page_token, own_id)
        self._ensure_default_schema(own_id)
        wanted = conjunction([Clause(term("experiment_id", own_id))])
        order = [{"created": "desc"}, {"schema_id": "asc"}]
        hits, more = find(self.docs, LABEL_SCHEMAS, wanted, order, max_results, after)
        return PagedList([_schema(hit.source) for hit in hits], encode_token(hits[-1].sort, own_id) if more else None)

    def update_label_schema(
        self,
        schema_id: str,
        *,
        name: str | None = None,
        instruction: str | None = None,
        enable_comment: bool | None = None,
        input: Any = None,  # noqa: A002 # MLflow's name
    ) -> Any:
        """Change what is given; the type stays.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, `RESOURCE_ALREADY_EXISTS` for a name that the experiment has,
                `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.genai.label_schemas.validation import validate_schema_for_update

        existing = self.get_label_schema(schema_id)
        validate_schema_for_update(
            existing=existing, name=name, instruction=instruction, enable_comment=enable_comment, input=input
        )
        if name is not None and name != existing.name:
            self._claim_schema_name(existing.experiment_id, name, schema_id)
        given = {"name": name, "instruction": instruction, "enable_comment": enable_comment}
        new = {k: v for k, v in given.items() if v is not None} | {"updated": now_ms()}
        if input is not None:
            new |= _stored_input(input)
        with handing_over(self.docs, _kind(existing.experiment_id), existing.name, name or existing.name, schema_id):
            changed = self.docs.update(LABEL_SCHEMAS, schema_id, lambda s: s | new, lambda: _missing(schema_id))
        return _schema(changed.source)

    def delete_label_schema(self, schema_id: str) -> None:
        """Delete a label schema; nothing happens where there is none. Answers that were given stay.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for the experiment's default question.
        """
        found = self.docs.get(LABEL_SCHEMAS, schema_id)
        if found is None:
            return
        if found.source["is_default"]:
            raise mlflow_error("The experiment's default question cannot be deleted.")
        self.docs.delete(LABEL_SCHEMAS, schema_id)
        release(self.docs, _kind(found.source["experiment_id"]), found.source["name"], schema_id)

    def _claim_schema_name(self, experiment_id: str, name: str, schema_id: str) -> None:
        def is_live(owner: str) -> bool:
            found = self.docs.get(LABEL_SCHEMAS, owner)
            return found is not None and found.source["name"] == name

        if claim(self.docs, _kind(experiment_id), name, schema_id, is_live) is not None:
            raise mlflow_error(
                f"Label schema with name '{name}' already exists for experiment '{experiment_id}'.",
                "RESOURCE_ALREADY_EXISTS",
            )

    def _ensure_default_schema(self, experiment_id: str) -> None:
        """Make MLflow's protected default question, where this MLflow has one and the experiment does not."""
        from mlflow.genai.label_schemas import validation
        from mlflow.genai.label_schemas.label_schemas import InputText

        name = getattr(validation, "DEFAULT_LABEL_SCHEMA_NAME", None)
        doc_id = f"ls-{document_id('default', experiment_id)[:32]}"
        if name is None or self.docs.get(LABEL_SCHEMAS, doc_id) is not None:
            return
        instruction = getattr(validation, "DEFAULT_LABEL_SCHEMA_INSTRUCTION", None)
        source = _new_schema(experiment_id, name, "feedback", InputText(), instruction, enable_comment=False)
        if claim(self.docs, _kind(experiment_id), name, doc_id, lambda _: True) is not None:
            return  # a question of the user's own has the name
        try:
            self.docs.create(LABEL_SCHEMAS, doc_id, source | {"schema_id": doc_id, "is_default": True})
        except Conflict:
            return


def _kind(experiment_id: str) -> str:
    return f"label-schema:{experiment_id}"


def _new_schema(
    experiment_id: str, name: str, kind: str, given: Any, instruction: str | None, *, enable_comment: bool
) -> Source:
    now = now_ms()
    return {
        "schema_id": f"ls-{uuid.uuid4().hex}",
        "experiment_id": experiment_id,
        "name": name,
        "type": kind,
        "instruction": instruction,
        "enable_comment": enable_comment,
        "is_default": False,
        "created_by": None,
        "created": now,
        "updated": now,
        **_stored_input(given),
    }


def _stored_input(given: Any) -> Source:
    names = {cls: name for name, cls in _INPUTS.items()}
    name = names.get(type(given).__name__)
    if name is None:
        raise mlflow_error(f"A label schema's input cannot be a {type(given).__name__}: {', '.join(names)} can.")
    return {"input_type": name, "input": {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}}


def _schema(source: Mapping[str, Any]) -> Any:
    from mlflow.genai.label_schemas import label_schemas

    from mlflow_plugkit.compat import supported_kwargs

    values = {
        "name": source["name"],
        "type": label_schemas.LabelSchemaType(source["type"]),
        "input": getattr(label_schemas, _INPUTS[source["input_type"]])(**source["input"]),
        "instruction": source["instruction"],
        "enable_comment": source["enable_comment"],
        "schema_id": source["schema_id"],
        "experiment_id": source["experiment_id"],
        "created_by": source["created_by"],
        "created_at": source["created"],
        "updated_at": source["updated"],
        "is_default": source["is_default"],
    }
    return label_schemas.LabelSchema(**supported_kwargs(label_schemas.LabelSchema, values))


def _missing(schema_id: str) -> Exception:
    return mlflow_error(f"Label schema with id '{schema_id}' not found.", "RESOURCE_DOES_NOT_EXIST")
