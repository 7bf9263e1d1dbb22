"""A minimal correct model evaluator passes every rule."""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow_plugkit_testing.evaluators import ModelEvaluatorConformance

sys.path.append(str(Path(__file__).parent / "broken"))


class TestPlainEvaluator(ModelEvaluatorConformance):
    evaluator_name = "plain"
    evaluator_config = {"plain": True}

    @property
    def evaluator_class(self):
        from plain_evaluators import PlainEvaluator

        return PlainEvaluator


class TestPlainRegressorEvaluator(TestPlainEvaluator):
    """An evaluator for regressors alone, without artifacts, that joins every evaluation of theirs."""

    model_types = ("regressor",)
    needs_configuration = False
    produces_artifacts = False

    @property
    def evaluator_class(self):
        from plain_evaluators import PlainEvaluator

        class Evaluator(PlainEvaluator):
            @classmethod
            def can_evaluate(cls, *, model_type, evaluator_config, **kwargs):
                return model_type == "regressor"

            def artifacts(self, run_id, metrics):
                return {}

        return Evaluator
