"""Online scoring: which share of an experiment's new traces a scorer looks at."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from mlflow_elasticsearch_tracking.experiments import Experiments
from mlflow_elasticsearch_tracking.indices_genai import SCORERS
from mlflow_elasticsearch_tracking.scorer_models import gateway_model, resolved, scorer_missing
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.queries import between, terms


class OnlineScoring(Experiments):
    """Configure online scoring."""

    def get_online_scoring_configs(self, scorer_ids: list[str]) -> list[Any]:
        """The configurations of those scorers that have one."""
        if not scorer_ids:
            return []
        found = self.docs.scan(SCORERS, terms("scorer_id", list(scorer_ids)), "scorer_id")
        return [_config(hit.source) for hit in found if hit.source.get("online")]

    def upsert_online_scoring_config(
        self, experiment_id: str, scorer_name: str, sample_rate: float, filter_string: str | None = None
    ) -> Any:
        """Set the configuration of a scorer.

        Args:
            experiment_id: of the scorer.
            scorer_name: of the scorer.
            sample_rate: the share of traces, 0.0 to 1.0.
            filter_string: which traces, in the grammar of `search_traces`.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad rate or filter, or a scorer that needs expectations or
                no gateway model; `RESOURCE_DOES_NOT_EXIST` for no such scorer.
        """
        _check(sample_rate, filter_string)
        experiment = self._active_experiment(experiment_id)

        def change(source: Source) -> Source:
            if sample_rate > 0 and source["versions"]:
                _check_scorer(scorer_name, max(source["versions"])[1])
            online = {"id": uuid.uuid4().hex, "sample_rate": float(sample_rate), "filter_string": filter_string}
            return source | {"online": online}

        doc_id = document_id("scorer", str(experiment["experiment_id"]), scorer_name)
        missing = scorer_missing(experiment_id, scorer_name)
        return _config(self.docs.update(SCORERS, doc_id, change, lambda: missing).source)

    def get_active_online_scorers(self) -> list[Any]:
        """The latest version of each scorer of all experiments that scores online."""
        from mlflow.genai.scorers.online.entities import OnlineScorer

        found = self.docs.scan(SCORERS, between("online.sample_rate", gt=0), "scorer_id")
        latest = [(hit.source, max(hit.source["versions"])) for hit in found if hit.source["versions"]]
        return [
            OnlineScorer(
                name=source["name"],
                serialized_scorer=resolved(self, text),
                online_config=_config(source),
                scorer_version=version,
            )
            for source, (version, text, _) in latest
            if gateway_model(text)
        ]


def _config(source: Mapping[str, Any]) -> Any:
    from mlflow.genai.scorers.online.entities import OnlineScoringConfig

    online = source["online"]
    return OnlineScoringConfig(
        online_scoring_config_id=online["id"],
        scorer_id=source["scorer_id"],
        sample_rate=online["sample_rate"],
        experiment_id=source["experiment_id"],
        filter_string=online["filter_string"],
    )


def _check(sample_rate: Any, filter_string: Any) -> None:
    from mlflow.utils.search_utils import SearchTraceUtils

    if not isinstance(sample_rate, int | float):
        raise mlflow_error(f"sample_rate must be a number, got {type(sample_rate).__name__}")
    if not 0.0 <= sample_rate <= 1.0:
        raise mlflow_error(f"sample_rate must be between 0.0 and 1.0, got {sample_rate}")
    if filter_string:
        if not isinstance(filter_string, str):
            raise mlflow_error(f"filter_string must be a string, got {type(filter_string).__name__}")
        SearchTraceUtils.parse_search_filter_for_search_traces(filter_string)


def _check_scorer(name: str, serialized: str) -> None:
    if not gateway_model(serialized):
        raise mlflow_error(
            f"Scorer '{name}' does not use a gateway model. Automatic evaluation is only supported for scorers that "
            "use gateway models."
        )
    if _needs_expectations(serialized):
        raise mlflow_error(
            f"Scorer '{name}' requires expectations, but scorers with expectations are not currently supported for "
            "automatic evaluation. Choose another scorer."
        )


def _needs_expectations(serialized: str) -> bool:
    from mlflow.genai.scorers.base import Scorer

    try:
        scorer: Any = Scorer.model_validate_json(serialized)
    except Exception:  # noqa: BLE001 # MLflow's rule: what cannot be rebuilt here is not refused
        return False
    fields: list[Any] = getattr(scorer, "get_input_fields", list)()
    return any(getattr(field, "name", "") == "expectations" for field in fields)
