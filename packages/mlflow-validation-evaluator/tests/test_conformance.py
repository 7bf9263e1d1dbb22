"""The evaluator keeps every rule of the conformance kit."""

from __future__ import annotations

from mlflow_plugkit_testing.evaluators import ModelEvaluatorConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class TestEvaluator(ModelEvaluatorConformance):
    evaluator_name = "validation"
    evaluator_config = {"resamples": 500, "gates": ["slices.found <= 100"]}


class TestPackaging(PackagingConformance):
    distribution = "mlflow-validation-evaluator"
