"""Model evaluators that are wrong, each in the way that its name says."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
from mlflow.models import EvaluationResult
from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact

from mlflow_plugkit_testing.evaluators import ModelEvaluatorConformance

sys.path.insert(0, str(Path(__file__).parent))

from plain_evaluators import PlainEvaluator


class Rules(ModelEvaluatorConformance):
    evaluator_name = "plain"
    evaluator_config = {"plain": True}
    evaluator_class = PlainEvaluator


class TestConstructorWithAnArgument(Rules):
    breaks = {"test_constructor_takes_nothing": "cannot be constructed without arguments"}

    class evaluator_class(PlainEvaluator):
        def __init__(self, threshold):
            self.threshold = threshold


class TestNameOfABuiltIn(Rules):
    breaks = {"test_name_is_not_a_built_in": "replaces MLflow's own evaluator"}
    evaluator_name = "default"


class TestAnswersForEverything(Rules):
    breaks = {
        "test_can_evaluate_knows_its_limits": "for a model type that does not exist",
        "test_stays_away_unless_configured": "can_evaluate joins everybody's evaluation",
    }

    class evaluator_class(PlainEvaluator):
        @classmethod
        def can_evaluate(cls, *, model_type, evaluator_config, **kwargs):
            return True


class TestAnyConfigurationWillDo(Rules):
    breaks = {"test_stays_away_unless_configured": "can_evaluate joins everybody's evaluation"}

    class evaluator_class(PlainEvaluator):
        @classmethod
        def can_evaluate(cls, *, model_type, evaluator_config, **kwargs):
            return bool(evaluator_config)


class TestLessThanDeclared(Rules):
    breaks = {"test_can_evaluate_answers": "can_evaluate is False for a regressor"}

    class evaluator_class(PlainEvaluator):
        @classmethod
        def can_evaluate(cls, *, model_type, evaluator_config, **kwargs):
            return model_type == "classifier"


class TestMoreThanDeclared(Rules):
    breaks = {"test_can_evaluate_answers": "can_evaluate is True for a regressor"}
    model_types = ("classifier",)


class TestClosedSignature(Rules):
    breaks = {"test_future_arguments_are_accepted": "['evaluate'] refuse keyword arguments"}

    class evaluator_class(PlainEvaluator):
        def evaluate(
            self, *, model_type, dataset, run_id, evaluator_config, model, extra_metrics, custom_artifacts, predictions
        ):
            raise NotImplementedError


class TestNoMetrics(Rules):
    breaks = {"test_result_has_metrics": "evaluate() returned no metrics"}

    class evaluator_class(PlainEvaluator):
        def evaluate(self, **kwargs):
            return EvaluationResult({}, {})


class TestTextAsMetric(Rules):
    breaks = {"test_result_has_metrics": "metrics that are no numbers"}

    class evaluator_class(PlainEvaluator):
        def evaluate(self, **kwargs):
            return EvaluationResult({"plain": "good"}, {})


class TestMetricsThatAreNotLogged(Rules):
    breaks = {"test_metrics_are_logged": "metrics that were returned but not logged to the run"}

    class evaluator_class(PlainEvaluator):
        def log_metrics(self, run_id, metrics):
            pass


class TestMetricsLoggedInPercent(Rules):
    breaks = {"test_metrics_are_logged": "metrics whose logged value is not the returned one"}

    class evaluator_class(PlainEvaluator):
        def log_metrics(self, run_id, metrics):
            super().log_metrics(run_id, {k: 100 * v for k, v in metrics.items()})


class TestNoArtifacts(Rules):
    breaks = {"test_artifacts_are_logged": "evaluate() returned no artifacts"}

    class evaluator_class(PlainEvaluator):
        def artifacts(self, run_id, metrics):
            return {}


class TestArtifactThatWasNotUploaded(Rules):
    breaks = {"test_artifacts_are_logged": "the artifact 'plain' cannot be loaded from the run"}

    class evaluator_class(PlainEvaluator):
        def artifacts(self, run_id, metrics):
            return {"plain": JsonEvaluationArtifact(f"{mlflow.get_artifact_uri()}/plain.json", metrics)}


class TestArtifactInATemporaryFolder(Rules):
    breaks = {"test_artifacts_are_logged": "outside the run's artifacts"}

    class evaluator_class(PlainEvaluator):
        def artifacts(self, run_id, metrics):
            return {"plain": JsonEvaluationArtifact("file:///srv/plain.json", metrics)}


class TestResultOfUnsavableThings(Rules):
    breaks = {"test_result_can_be_saved": "the result cannot be saved and loaded again"}

    class evaluator_class(PlainEvaluator):
        def artifacts(self, run_id, metrics):
            return {"plain": JsonEvaluationArtifact(f"{mlflow.get_artifact_uri()}/plain.json", {object()})}


class TestRunOfItsOwn(Rules):
    breaks = {"test_only_the_given_run_is_used": "the evaluator started runs of its own"}

    class evaluator_class(PlainEvaluator):
        def log_metrics(self, run_id, metrics):
            with mlflow.start_run(nested=True):
                mlflow.log_metrics(metrics)


class TestEndOfTheGivenRun(Rules):
    breaks = {"test_only_the_given_run_is_used": "the evaluator ended the run that it was given"}

    class evaluator_class(PlainEvaluator):
        def log_metrics(self, run_id, metrics):
            super().log_metrics(run_id, metrics)
            mlflow.end_run()


class TestChangedData(Rules):
    breaks = {"test_data_is_left_alone": "the evaluator changed the features for the evaluators after it"}

    class evaluator_class(PlainEvaluator):
        def predict(self, model, dataset):
            dataset.features_data.iloc[:, 0] = 0.0
            return super().predict(model, dataset)


class TestExtraMetricsRefused(Rules):
    breaks = {"test_extra_metrics_are_tolerated": "failed because the caller gave extra_metrics"}

    class evaluator_class(PlainEvaluator):
        def evaluate(self, *, extra_metrics=None, **kwargs):
            if extra_metrics:
                raise NotImplementedError("extra metrics")
            return super().evaluate(**kwargs)


class TestModelIsRequired(Rules):
    breaks = {"test_predictions_without_a_model": "were not evaluated without a model"}

    class evaluator_class(PlainEvaluator):
        def predict(self, model, dataset):
            return model.predict(dataset.features_data)


class TestPredictionsIgnored(Rules):
    breaks = {"test_predictions_without_a_model": "metrics that differ from those of the model"}

    class evaluator_class(PlainEvaluator):
        def predict(self, model, dataset):
            return dataset.labels_data if model is None else super().predict(model, dataset)
