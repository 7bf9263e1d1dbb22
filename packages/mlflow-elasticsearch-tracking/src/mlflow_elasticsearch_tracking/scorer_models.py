"""The models that scorers name: `gateway:/<endpoint>` is stored by the endpoint's id and shown by its name."""

from __future__ import annotations

import json
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_plugkit.compat import optional_attribute
from mlflow_plugkit.errors import mlflow_error

_UTILS = "mlflow.genai.scorers.scorer_utils"


def named(store: Any, serialized: str) -> str:
    """The serialized scorer as it is stored, after its model was checked.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a model that MLflow refuses or text that is no JSON object;
            what `get_gateway_endpoint` raises for a gateway endpoint.
    """
    if optional_attribute(_UTILS, "validate_scorer_model") is None:
        return serialized  # this MLflow has scorers, and no gateway yet
    from mlflow.genai.scorers import scorer_utils

    data = _object(serialized)
    model: Any = scorer_utils.extract_model_from_serialized_scorer(data)
    scorer_utils.validate_scorer_model(model)
    if not scorer_utils.is_gateway_model(model):
        return serialized
    endpoint = store.get_gateway_endpoint(name=scorer_utils.extract_endpoint_ref(model))
    new_model = scorer_utils.build_gateway_model(endpoint.endpoint_id)
    return json.dumps(scorer_utils.update_model_in_serialized_scorer(data, new_model))


def resolved(store: Any, serialized: str) -> str:
    """The serialized scorer as it is shown; a gateway endpoint that is gone leaves it without a model."""
    if not gateway_model(serialized):
        return serialized
    from mlflow.genai.scorers import scorer_utils

    data = _object(serialized)
    stored: Any = scorer_utils.extract_model_from_serialized_scorer(data)
    reference = scorer_utils.extract_endpoint_ref(stored)
    try:
        model: Any = scorer_utils.build_gateway_model(store.get_gateway_endpoint(endpoint_id=reference).name)
    except MlflowException:
        model = None
    return json.dumps(scorer_utils.update_model_in_serialized_scorer(data, model))


def gateway_model(serialized: str) -> bool:
    """Whether a serialized scorer uses a model of the gateway."""
    if "gateway" not in serialized or optional_attribute(_UTILS, "is_gateway_model") is None:
        return False
    from mlflow.genai.scorers import scorer_utils

    model = scorer_utils.extract_model_from_serialized_scorer(_object(serialized))
    return bool(scorer_utils.is_gateway_model(model))


def scorer_missing(experiment_id: str, name: str, version: int | None = None) -> Exception:
    """The error for a scorer, or a version of one, that is not there."""
    which = f" and version {version}" if version is not None else ""
    return mlflow_error(
        f"Scorer with name '{name}'{which} not found for experiment {experiment_id}.", "RESOURCE_DOES_NOT_EXIST"
    )


def _object(serialized: str) -> dict[str, Any]:
    try:
        data = json.loads(serialized)
    except ValueError as exc:
        raise mlflow_error(f"The serialized scorer is no JSON: {exc}.") from None
    if not isinstance(data, dict):
        raise mlflow_error("The serialized scorer is no JSON object.")
    return data
