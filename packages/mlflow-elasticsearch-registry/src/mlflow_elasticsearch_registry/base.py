"""What the parts of the registry stand on: finding models and versions by name, and changing them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mlflow.utils.validation import _validate_model_name, _validate_model_version

from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS
from mlflow_elasticsearch_registry.records import Source, is_live, model_document, version_document, version_id
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document, Documents, ElasticsearchSettings, names
from mlflow_plugkit_elasticsearch.documents import busy, pause

KIND = "registered model"
_NAMES_AT_MOST = 10_000
_ATTEMPTS = 1_000


class StaleName(Exception):  # noqa: N818 # a signal inside this package, never shown
    """The model that had this name is gone or has another one."""


class RegistryBase:
    """Base of the store's parts; each of them is a mixin for one subject.

    A model has an id of its own, so that it keeps its versions when it is renamed. Its name leads to the id through
    a claim (`names.claim`), which makes names unique. This process remembers the ids; each use of one checks the
    name in the model's document.

    Attributes:
        docs: the documents of this store's prefix, shared by all stores of the process.
    """

    docs: Documents
    settings: ElasticsearchSettings
    _ids: dict[str, str]

    def _id_of(self, name: str) -> str:
        """The id of the model that has, or had a moment ago, this name.

        Raises:
            StaleName: nobody has it.
        """
        model_id = self._ids.get(name) or names.owner_of(self.docs, KIND, name)
        if model_id is None:
            raise StaleName
        if len(self._ids) >= _NAMES_AT_MOST:
            self._ids.clear()
        self._ids[name] = model_id
        return model_id

    def _found(self, name: str, error: Callable[[], Exception], find: Callable[[str], Any]) -> Any:
        """What `find` makes of the model's id; once more from the claim where the remembered id is stale."""
        for _ in range(2):
            try:
                return find(self._id_of(name))
            except StaleName:
                self._ids.pop(name, None)
        raise error()

    def _model(self, name: str) -> Document:
        """The registered model of this name.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for an empty name.
        """
        _validate_model_name(name)

        def find(model_id: str) -> Document:
            return named(self.docs.get(REGISTERED_MODELS, model_id), name)

        found: Document = self._found(name, lambda: missing_model(name), find)
        return found

    def _version(self, name: str, version: Any) -> tuple[Document, Document]:
        """A model and one of its versions, by one request.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, also for a deleted version; `INVALID_PARAMETER_VALUE` for an
                empty name or what is no number.
        """
        _validate_model_name(name)
        number = version_number(version)

        def find(model_id: str) -> tuple[Document, Document]:
            wanted = [(REGISTERED_MODELS, model_id), (MODEL_VERSIONS, version_id(model_id, number))]
            model, found = self.docs.get_each(wanted)
            model = named(model, name)
            if found is None or not is_live(found.source):
                raise missing_version(name, number)
            return model, found

        pair: tuple[Document, Document] = self._found(name, lambda: missing_version(name, number), find)
        return pair

    def _change_model(self, name: str, change: Callable[[Source], Source | None]) -> Document:
        """Change the registered model of this name; `change` as for `Documents.update`.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; what `change` raises.
        """
        _validate_model_name(name)

        def checked(source: Source) -> Source | None:
            if source.get("is_deleted") or source["name"] != name:
                raise StaleName
            changed = change(source)
            return None if changed is None else model_document(changed)

        def find(model_id: str) -> Document:
            return self.docs.update(REGISTERED_MODELS, model_id, checked, StaleName)

        found: Document = self._found(name, lambda: missing_model(name), find)
        return found

    def _change_version(
        self, name: str, version: Any, change: Callable[[Source], Source | None]
    ) -> tuple[Document, Document]:
        """Change a version; the model, and the version as it is now. `change` as for `Documents.update`."""
        _validate_model_name(name)
        with self.docs.turn(MODEL_VERSIONS, f"{name}:{version}"):
            for attempt in range(_ATTEMPTS):
                model, found = self._version(name, version)
                changed = change(dict(found.source))
                if changed is None:
                    return model, found
                try:
                    return model, self.docs.put(MODEL_VERSIONS, found.id, version_document(changed), found)
                except Conflict:
                    pause(attempt)
        raise busy(MODEL_VERSIONS, f"{name}:{version}")


def named(found: Document | None, name: str) -> Document:
    """The document of a model, if it lives under this name.

    Raises:
        StaleName: it does not.
    """
    if found is None or found.source.get("is_deleted") or found.source["name"] != name:
        raise StaleName
    return found


def version_number(version: Any) -> int:
    """The number of a version as callers give it: an integer, or its text.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    if version is None:
        raise mlflow_error("The version is missing. Give its number.")
    _validate_model_version(version)
    return int(version)


def now_ms() -> int:
    """The clock in milliseconds since 1970, as MLflow stores times."""
    return time.time_ns() // 1_000_000


def missing_model(name: str) -> Exception:
    """The error for a registered model that is not there."""
    return mlflow_error(f"Registered Model with name={name} not found", "RESOURCE_DOES_NOT_EXIST")


def missing_version(name: str, version: Any) -> Exception:
    """The error for a version that is not there, or was deleted."""
    return mlflow_error(f"Model Version (name={name}, version={version}) not found", "RESOURCE_DOES_NOT_EXIST")
