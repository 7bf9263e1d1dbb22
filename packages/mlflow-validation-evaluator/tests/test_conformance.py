"""The evaluator keeps every rule of the conformance kit."""

from __future__ import annotations

from mlflow_plugkit_testing.evaluators import ModelEvaluatorConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class TestEvaluator(ModelEvaluatorConformance):
    evaluator_name = "validation"
    evaluator_config = {"slices": {"columns": ["mean radius"]}, "robustness": True, "resamples": 500}


class TestRegressor(TestEvaluator):
    model_types = ("regressor", "classifier")
    evaluator_config = {"gates": ["r2 > -10"], "slices": False}


class TestPackaging(PackagingConformance):
    distribution = "mlflow-validation-evaluator"
