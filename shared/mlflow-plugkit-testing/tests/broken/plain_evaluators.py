"""A minimal model evaluator that keeps every rule; the broken ones change one thing each."""

from __future__ import annotations

import time

import numpy
from mlflow.entities import Metric
from mlflow.models import EvaluationResult
from mlflow.models.evaluation import ModelEvaluator
from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact
from mlflow.tracking import MlflowClient


class PlainEvaluator(ModelEvaluator):
    @classmethod
    def can_evaluate(cls, *, model_type, evaluator_config, **kwargs):
        return model_type in ("classifier", "regressor") and bool(evaluator_config.get("plain"))

    def evaluate(self, *, model_type, dataset, run_id, evaluator_config, model=None, **kwargs):
        labels = numpy.asarray(dataset.labels_data)
        found = numpy.asarray(self.predict(model, dataset))
        metrics = {"plain_mean_error": self.mean_error(found, labels), "plain_rows": float(len(labels))}
        self.log_metrics(run_id, metrics)
        return EvaluationResult(metrics=metrics, artifacts=self.artifacts(run_id, metrics))

    def predict(self, model, dataset):
        return dataset.predictions_data if model is None else model.predict(dataset.features_data)

    def mean_error(self, found, labels):
        return float(numpy.abs(found - labels).mean())

    def log_metrics(self, run_id, metrics):
        now = int(time.time() * 1000)
        MlflowClient().log_batch(run_id, [Metric(k, v, now, 0) for k, v in metrics.items()])

    def artifacts(self, run_id, metrics):
        client = MlflowClient()
        client.log_dict(run_id, metrics, "plain.json")
        return {"plain": JsonEvaluationArtifact(f"{client.get_run(run_id).info.artifact_uri}/plain.json", metrics)}
