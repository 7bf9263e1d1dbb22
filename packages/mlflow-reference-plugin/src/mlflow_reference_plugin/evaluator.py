"""The model evaluator: the share of right answers, or the mean absolute error."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator
from mlflow.utils.time import get_current_time_millis

from mlflow_plugkit.compat import choosing_among_all_evaluators, supported_kwargs

OPTIONS = {"decimals"}
REPORT = "reference_evaluation.json"


class ReferenceEvaluator(ModelEvaluator):
    """`mlflow.models.evaluate(..., evaluators="reference")`.

    Its one option, `decimals`, rounds the metric. Metrics are logged here: MLflow itself logs nothing
    that an evaluator returns.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: dict[str, Any] | None, **_: Any) -> bool:
        """True for classifiers and regressors, but only where the user named or configured this evaluator."""
        configured = bool(evaluator_config) and set(evaluator_config or ()) <= OPTIONS
        return model_type in ("classifier", "regressor") and (configured or not choosing_among_all_evaluators())

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: dict[str, Any] | None,
        model: Any = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        import numpy as np
        from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact

        labels = np.asarray(dataset.labels_data)
        predictions = np.asarray(model.predict(dataset.features_data) if model else dataset.predictions_data)
        predictions = predictions.reshape(labels.shape)
        if model_type == "classifier":
            name, value = "reference_accuracy", float(np.mean(predictions == labels))
        else:
            name, value = "reference_mean_absolute_error", float(np.mean(np.abs(predictions - labels)))
        decimals = (evaluator_config or {}).get("decimals")
        value = value if decimals is None else round(value, decimals)
        about = supported_kwargs(Metric.__init__, {"model_id": kwargs.get("model_id"), "run_id": run_id})
        client = MlflowClient()
        client.log_batch(run_id, metrics=[Metric(name, value, get_current_time_millis(), 0, **about)])
        report = {"rows": len(labels), name: value}
        client.log_dict(run_id, report, REPORT)
        uri = f"{client.get_run(run_id).info.artifact_uri}/{REPORT}"
        return EvaluationResult(
            {name: value}, {"reference_evaluation": JsonEvaluationArtifact(uri, report)}, run_id=run_id
        )
