"""Scorers, their versions, and how they score online."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.indices_genai import SCORERS
from mlflow_elasticsearch_tracking.online_scoring import OnlineScoring
from mlflow_elasticsearch_tracking.scorer_models import named, resolved, scorer_missing
from mlflow_elasticsearch_tracking.trace_base import experiment_number
from mlflow_plugkit.compat import optional_attribute
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document
from mlflow_plugkit_elasticsearch.documents import Source, pause
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.queries import terms

_UTILS = "mlflow.genai.scorers.scorer_utils"


class Scorers(OnlineScoring):
    """Register, read and delete scorers; configure online scoring."""

    def register_scorer(self, experiment_id: str, name: str, serialized_scorer: str) -> Any:
        """Keep the next version of a scorer.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad name or model, `RESOURCE_DOES_NOT_EXIST` for no such
                experiment, `NOT_IMPLEMENTED` for a scorer that uses a gateway endpoint.
        """
        check_name = optional_attribute(_UTILS, "validate_scorer_name")
        if check_name is not None:
            check_name(name)
        experiment = self._active_experiment(experiment_id)
        text = named(self, serialized_scorer)
        number = str(experiment["experiment_id"])
        doc_id = document_id("scorer", number, name)
        for attempt in range(100):
            found = self.docs.get(SCORERS, doc_id)
            source = dict(found.source) if found else _new_scorer(number, name)
            version = max((row[0] for row in source["versions"]), default=0) + 1
            source["versions"] = [*source["versions"], [version, text, now_ms()]]
            try:
                if found is None:
                    self.docs.create(SCORERS, doc_id, source)
                else:
                    self.docs.put(SCORERS, doc_id, source, found)
            except Conflict:
                pause(attempt)
                continue
            return self._version(source, version)
        raise mlflow_error(f"The scorer {name!r} is being registered by many at once. Try again.", "RESOURCE_CONFLICT")

    def get_scorer(self, experiment_id: str, name: str, version: int | None = None) -> Any:
        """A version of a scorer, the latest unless told otherwise.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        source = self._scorer(experiment_id, name).source
        numbers = [row[0] for row in source["versions"]]
        wanted = max(numbers, default=None) if version is None else int(version)
        if wanted is None or wanted not in numbers:
            raise scorer_missing(experiment_id, name, version)
        return self._version(source, wanted)

    def list_scorers(self, experiment_id: str) -> list[Any]:
        """The latest version of each scorer of an experiment, by name."""
        return self.list_scorers_across_experiments([self._active_experiment(experiment_id)["experiment_id"]])

    def list_scorers_across_experiments(self, experiment_ids: list[str]) -> list[Any]:
        """The latest version of each scorer of the experiments, by experiment and name."""
        if not experiment_ids:
            return []
        ids = [experiment_number(one) for one in experiment_ids]
        found = self.docs.scan(SCORERS, terms("experiment_id", ids), "scorer_id")
        sources = sorted((h.source for h in found if h.source["versions"]), key=lambda s: (s["number"], s["name"]))
        return [self._version(s, max(row[0] for row in s["versions"])) for s in sources]

    def list_scorer_versions(self, experiment_id: str, name: str) -> list[Any]:
        """All versions of a scorer, the oldest first.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        source = self._scorer(experiment_id, name).source
        if not source["versions"]:
            raise scorer_missing(experiment_id, name)
        return [self._version(source, row[0]) for row in sorted(source["versions"])]

    def delete_scorer(self, experiment_id: str, name: str, version: int | None = None) -> None:
        """Delete a version, or the scorer with all its versions and its online configuration.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        document = self._scorer(experiment_id, name)
        if version is None:
            if not document.source["versions"]:
                raise scorer_missing(experiment_id, name)
            self.docs.delete(SCORERS, document.id)
            return

        def change(source: Source) -> Source:
            left = [row for row in source["versions"] if row[0] != int(version)]
            if len(left) == len(source["versions"]):
                raise scorer_missing(experiment_id, name, version)
            return source | {"versions": left}

        self.docs.update(SCORERS, document.id, change, lambda: scorer_missing(experiment_id, name))

    def resolve_endpoint_in_scorer(self, scorer_version: Any) -> Any:
        """The version with the name of its gateway endpoint instead of its id (MLflow's guardrails call it)."""
        from mlflow.entities.scorer import ScorerVersion

        return ScorerVersion(
            experiment_id=scorer_version.experiment_id,
            scorer_name=scorer_version.scorer_name,
            scorer_version=scorer_version.scorer_version,
            serialized_scorer=resolved(self, scorer_version._serialized_scorer),
            creation_time=scorer_version.creation_time,
            scorer_id=scorer_version.scorer_id,
        )

    def _scorer(self, experiment_id: str, name: str) -> Document:
        experiment = self._active_experiment(experiment_id)
        found = self.docs.get(SCORERS, document_id("scorer", str(experiment["experiment_id"]), name))
        if found is None:
            raise scorer_missing(experiment_id, name)
        return found

    def _version(self, source: Mapping[str, Any], version: int) -> Any:
        from mlflow.entities.scorer import ScorerVersion

        text, created = next((row[1], row[2]) for row in source["versions"] if row[0] == version)
        return ScorerVersion(
            experiment_id=source["experiment_id"],
            scorer_name=source["name"],
            scorer_version=version,
            serialized_scorer=resolved(self, text),
            creation_time=created,
            scorer_id=source["scorer_id"],
        )


def _new_scorer(experiment_id: str, name: str) -> Source:
    return {
        "scorer_id": str(uuid.uuid4()),
        "experiment_id": experiment_id,
        "number": int(experiment_id),
        "name": name,
        "versions": [],
        "online": None,
    }
