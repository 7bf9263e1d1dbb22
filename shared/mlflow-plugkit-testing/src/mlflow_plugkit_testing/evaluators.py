"""Conformance of model evaluators (entry points `mlflow.model_evaluator`).

`mlflow.models.evaluate` makes a new evaluator without arguments, asks `can_evaluate`, and calls `evaluate`;
metrics and artifacts are the evaluator's to log (mlflow/models/evaluation/base.py). Without `evaluators=...`
it runs every registered evaluator whose `can_evaluate` says yes.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.local import LocalTracking
from mlflow_plugkit_testing.providers import must_not_raise, registered_in

BUILT_IN = frozenset({"default", "classifier", "regressor", "shap"})
OTHERS_CONFIG = {"log_model_explainability": False}
"""A configuration that is meant for MLflow's own evaluators, which a flat `evaluator_config` gives to all."""
MODEL_TYPES = ("classifier", "regressor")


class ModelEvaluatorConformance(LocalTracking):
    """The rules for a model evaluator.

    Override `evaluator_name`; for an evaluator without an entry point also `evaluator_class`; and
    `evaluator_config`, which makes it active:

        class TestEvaluator(ModelEvaluatorConformance):
            evaluator_name = "demo"
            evaluator_config = {"demo": True}
    """

    evaluator_name: ClassVar[str] = ""
    evaluator_config: ClassVar[Mapping[str, Any]] = {}
    model_types: ClassVar[tuple[str, ...]] = MODEL_TYPES
    """The model types that the evaluator evaluates, of MLflow's `classifier` and `regressor`."""

    @property
    def evaluator_class(self) -> type[Any]:
        """The class under test. By default what MLflow's registry knows under `evaluator_name`."""
        found = _registry()._registry.get(self.evaluator_name)
        if found is None:
            pytest.fail(f"MLflow knows no model evaluator {self.evaluator_name!r}; is its distribution installed?")
        cls: type[Any] = found
        return cls

    @property
    def needs_configuration(self) -> bool:
        """Whether the evaluator stays away from evaluations that do not configure it."""
        return True

    @property
    def produces_artifacts(self) -> bool:
        """Whether the result holds artifacts."""
        return True

    @property
    def supports_static_predictions(self) -> bool:
        """Whether a data set that holds the predictions is evaluated without a model."""
        return True

    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        with registered_in(_registry()._registry, self.evaluator_name, self.evaluator_class):
            yield

    def evaluate(self, model_type: str, **kwargs: Any) -> Any:
        """`mlflow.models.evaluate` of a real scikit-learn model by this evaluator alone."""
        import mlflow

        case = real_case(model_type)
        given = {"model": case.model, "data": case.data.copy(), "targets": "target", **kwargs}
        return mlflow.models.evaluate(
            model_type=model_type,
            evaluators=self.evaluator_name,
            evaluator_config=dict(self.evaluator_config),
            **given,
        )

    @contextmanager
    def evaluated(self, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """The result of an evaluation in a run of its own, and that run as stored."""
        import mlflow

        with mlflow.start_run() as run:
            result = self.evaluate(self.model_types[0], **kwargs)
        yield result, mlflow.get_run(run.info.run_id)

    def test_constructor_takes_nothing(self) -> None:
        """The registry makes an instance for each use, without arguments."""
        with must_not_raise("the evaluator cannot be constructed without arguments, as MLflow does"):
            self.evaluator_class()

    def test_name_is_not_a_built_in(self) -> None:
        """A plugin under the name of a built-in evaluator replaces it for everybody."""
        assert self.evaluator_name not in BUILT_IN, f"{self.evaluator_name!r} replaces MLflow's own evaluator"

    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    def test_can_evaluate_answers(self, model_type: str) -> None:
        """`can_evaluate` says True for the declared model types with its configuration, False for others."""
        answer = self.can_evaluate(model_type, self.evaluator_config)
        wanted = model_type in self.model_types
        assert answer is wanted, f"can_evaluate is {answer!r} for a {model_type}, the suite declares {wanted}"

    def test_can_evaluate_knows_its_limits(self) -> None:
        """A model type that nobody has heard of cannot be evaluated."""
        answer = self.can_evaluate("plugkit-unheard-of", self.evaluator_config)
        assert answer is False, f"can_evaluate is {answer!r} for a model type that does not exist"

    @pytest.mark.parametrize("config", [{}, OTHERS_CONFIG], ids=["none", "another evaluator's"])
    def test_stays_away_unless_configured(self, tracking_uri: str, config: dict[str, Any]) -> None:
        """An evaluation that neither names nor configures the evaluator runs without it (`evaluators=None`)."""
        if not self.needs_configuration:
            pytest.skip("the evaluator joins every evaluation on purpose")
        joined = [t for t in self.model_types if self.evaluator_name in evaluators_for_everybody(t, config)]
        assert not joined, f"can_evaluate joins everybody's evaluation of {joined}, with the configuration {config}"

    def can_evaluate(self, model_type: str, config: Mapping[str, Any]) -> Any:
        """The answer of a new instance, asked as MLflow asks."""
        return self.evaluator_class().can_evaluate(model_type=model_type, evaluator_config=dict(config))

    def test_future_arguments_are_accepted(self) -> None:
        """Both methods take keyword arguments that later MLflow versions may add (ModelEvaluator's docstring)."""
        closed = [
            name
            for name in ("can_evaluate", "evaluate")
            if not any(p.kind is p.VAR_KEYWORD for p in _parameters(getattr(self.evaluator_class, name)))
        ]
        assert not closed, f"{closed} refuse keyword arguments that a later MLflow may pass; add **kwargs"

    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    def test_result_has_metrics(self, tracking_uri: str, model_type: str) -> None:
        """The evaluation of a real model gives an EvaluationResult whose metrics are numbers."""
        if model_type not in self.model_types:
            pytest.skip(f"the evaluator declares that it evaluates no {model_type}")
        from mlflow.models import EvaluationResult

        result = self.evaluate(model_type)
        assert isinstance(result, EvaluationResult)
        assert result.metrics, "evaluate() returned no metrics; MLflow expects an EvaluationResult that holds some"
        wrong = {k: v for k, v in result.metrics.items() if not _is_number(v)}
        assert not wrong, f"metrics that are no numbers: {wrong}; a run can store numbers only"

    def test_metrics_are_logged(self, tracking_uri: str) -> None:
        """MLflow does not log what `evaluate()` returns: the run must hold the same metrics with the same values."""
        with self.evaluated() as (result, run):
            logged = run.data.metrics
        missing = sorted(result.metrics.keys() - logged.keys())
        assert not missing, f"metrics that were returned but not logged to the run: {missing}"
        unlike = {k: (v, logged[k]) for k, v in result.metrics.items() if not _same(v, logged[k])}
        assert not unlike, f"metrics whose logged value is not the returned one: {unlike}"

    def test_artifacts_are_logged(self, tracking_uri: str) -> None:
        """Each artifact lies in the run's artifacts, and its content can be loaded from there."""
        if not self.produces_artifacts:
            pytest.skip("the evaluator makes no artifacts")
        with self.evaluated() as (result, run):
            artifacts = result.artifacts
        assert artifacts, "evaluate() returned no artifacts, although the suite declares produces_artifacts"
        for name, artifact in artifacts.items():
            assert artifact.uri.startswith((run.info.artifact_uri, f"runs:/{run.info.run_id}/")), (
                f"the artifact {name!r} lies at {artifact.uri}, outside the run's artifacts"
            )
            with must_not_raise(f"the artifact {name!r} cannot be loaded from the run"):
                assert type(artifact)(artifact.uri).content is not None

    def test_result_can_be_saved(self, tracking_uri: str, tmp_path: Path) -> None:
        """`EvaluationResult.save` and `.load` bring back the same metrics and artifacts."""
        from mlflow.models import EvaluationResult

        with self.evaluated() as (result, _):
            pass
        with must_not_raise("the result cannot be saved and loaded again"):
            result.save(str(tmp_path / "saved"))
            loaded = EvaluationResult.load(str(tmp_path / "saved"))
        assert loaded.metrics == pytest.approx(result.metrics, nan_ok=True)
        assert loaded.artifacts.keys() == result.artifacts.keys()

    def test_only_the_given_run_is_used(self, tracking_uri: str) -> None:
        """The evaluator logs to the run it is given and starts no other, and leaves that run active."""
        import mlflow

        with mlflow.start_run() as run:
            self.evaluate(self.model_types[0])
            active = mlflow.active_run()
        runs = mlflow.MlflowClient().search_runs(["0"])
        assert [r.info.run_id for r in runs] == [run.info.run_id], "the evaluator started runs of its own"
        assert active, "the evaluator ended the run that it was given"
        assert active.info.run_id == run.info.run_id

    def test_data_is_left_alone(self, tracking_uri: str) -> None:
        """All evaluators of one call share the data set: the next one finds it unchanged."""
        import mlflow

        witness = _Witness()
        case = real_case(self.model_types[0])
        with registered_in(_registry()._registry, "plugkit-witness", lambda: witness):
            mlflow.models.evaluate(
                model=case.model,
                data=case.data.copy(),
                targets="target",
                model_type=self.model_types[0],
                evaluators=[self.evaluator_name, "plugkit-witness"],
                evaluator_config={self.evaluator_name: dict(self.evaluator_config)},
            )
        features, labels = witness.seen
        assert features.equals(case.data.drop(columns="target")), (
            "the evaluator changed the features for the evaluators after it"
        )
        assert list(labels) == list(case.data["target"]), "the evaluator changed the labels for the evaluators after it"

    def test_extra_metrics_are_tolerated(self, tracking_uri: str) -> None:
        """`extra_metrics` and `custom_artifacts` of the caller do no harm, whether they are used or not."""
        from mlflow.models import make_metric

        metric = make_metric(eval_fn=lambda *_, **__: 1.0, greater_is_better=True, name="plugkit_extra")
        with (
            must_not_raise("the evaluation failed because the caller gave extra_metrics"),
            self.evaluated(extra_metrics=[metric]) as (result, _),
        ):
            assert result.metrics

    def test_predictions_without_a_model(self, tracking_uri: str) -> None:
        """Predictions that lie in the data are evaluated without a model, to the same metrics."""
        if not self.supports_static_predictions:
            pytest.skip("the evaluator needs a model")
        case = real_case(self.model_types[0])
        data = case.data.assign(prediction=case.model.predict(case.data.drop(columns="target")))
        with self.evaluated() as (with_model, _):
            pass
        with must_not_raise("predictions in the data were not evaluated without a model"):
            alone = self.evaluate(self.model_types[0], model=None, data=data, predictions="prediction")
        unlike = {k: v for k, v in alone.metrics.items() if not _same(v, with_model.metrics.get(k, v))}
        assert not unlike, f"metrics that differ from those of the model that made the predictions: {unlike}"


class _Witness:
    """An evaluator that keeps a copy of the data set it is given."""

    seen: tuple[Any, Any]

    def can_evaluate(self, **_: Any) -> bool:
        return True

    def evaluate(self, *, dataset: Any, **_: Any) -> Any:
        from mlflow.models import EvaluationResult

        self.seen = (dataset.features_data.copy(deep=True), list(dataset.labels_data))
        return EvaluationResult({}, {})


class RealCase:
    """A small real scikit-learn model and the data that it is evaluated on, with the column `target`."""

    def __init__(self, model_type: str, folder: str) -> None:
        import mlflow
        from sklearn.datasets import load_breast_cancer, load_diabetes
        from sklearn.linear_model import LinearRegression, LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        classifies = model_type == "classifier"
        bunch = (load_breast_cancer if classifies else load_diabetes)(as_frame=True)
        features = bunch.data.iloc[:, :6]
        estimator = make_pipeline(StandardScaler(), LogisticRegression() if classifies else LinearRegression())
        estimator.fit(features[:200], bunch.target[:200])
        mlflow.sklearn.save_model(estimator, folder, pip_requirements=["scikit-learn"])
        self.model = mlflow.pyfunc.load_model(folder)
        self.data = features[200:300].assign(target=bunch.target[200:300]).reset_index(drop=True)


@lru_cache(maxsize=2)
def real_case(model_type: str) -> RealCase:
    """The case of a model type, made once."""
    with tempfile.TemporaryDirectory(prefix="mlflow-plugkit-") as folder:
        return RealCase(model_type, f"{folder}/model")


def evaluators_for_everybody(model_type: str, config: Mapping[str, Any]) -> list[str]:
    """The names of the evaluators that MLflow runs for a user who named none.

    `can_evaluate` is asked on the way by `mlflow.models.evaluation.base.resolve_evaluators_and_configs`.
    """
    from mlflow.models.evaluation.base import resolve_evaluators_and_configs

    return [found.name for found in resolve_evaluators_and_configs(None, dict(config), model_type)]


def _registry() -> Any:
    import mlflow.models.evaluation.evaluator_registry as module

    return module._model_evaluation_registry


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _is_number(value: Any) -> bool:
    import numpy

    return isinstance(value, (int, float, numpy.integer, numpy.floating)) and not isinstance(value, bool)


def _same(one: float, other: float) -> bool:
    return bool(one == pytest.approx(other, rel=1e-9, nan_ok=True))
