"""The whole way through `mlflow.models.evaluate`, with real models and a real store."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models.evaluation.validation import ModelValidationFailedException
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlflow_validation_evaluator import GatesBrokenError

N = 1200


@lru_cache
def data(classes: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=N), "z": rng.normal(size=N), "plan": rng.choice(["free", "paid"], N)})
    frame["sex"] = rng.choice(["f", "m"], N)
    score = frame["x"] + 0.5 * (frame["plan"] == "paid") + rng.logistic(size=N)
    frame["target"] = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))
    return frame


@lru_cache
def classifier(classes: int = 2) -> Any:
    frame = data(classes)
    columns = make_column_transformer((StandardScaler(), ["x", "z"]), (OneHotEncoder(), ["plan"]))
    return make_pipeline(columns, LogisticRegression()).fit(frame[["x", "z", "plan"]], frame["target"])


def logged(model: Any) -> Any:
    """The model's URI and, where this MLflow has logged models, its id."""
    columns = list(model.feature_names_in_)
    signature = mlflow.models.infer_signature(data()[columns], model.predict(data()[columns]))
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model, "model", signature=signature, pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
        )
    return info.model_uri, getattr(info, "model_id", None)


def evaluate(model: Any, frame: pd.DataFrame, model_type: str = "classifier", **config: Any) -> Any:
    kwargs = {"predictions": "guess"} if model is None else {}
    return mlflow.models.evaluate(
        model, frame.copy(), targets="target", model_type=model_type, evaluators="validation",
        evaluator_config={"resamples": 500, **config}, **kwargs,
    )  # fmt: skip


EVERYTHING: dict[str, Any] = {
    "slices": {"columns": ["plan", ["plan", "sex"]]},
    "fairness": {"columns": ["sex"]},
    "robustness": {"rows": 300},
}


NAMES = (
    "accuracy", "roc_auc.lower", "gap.selection_rate", "worst_slice.recall", "ece", "psi.max", "psi.x", "psi.label",
    "psi.prediction", "robustness.noise.drop", "robustness.permutation.accuracy",
)  # fmt: skip


def test_everything_is_logged_with_the_models_id(store: str) -> None:
    uri, model_id = logged(classifier())
    reference = data().assign(x=data()["x"] + 0.5)
    drift = {"reference": reference}
    with mlflow.start_run() as run:
        result = evaluate(uri, data(), drift=drift, gates=["accuracy > 0.5"], **EVERYTHING)
    stored = mlflow.get_run(run.info.run_id)
    for name in NAMES:
        assert stored.data.metrics[name] == pytest.approx(result.metrics[name])
    assert stored.data.tags["validation.gates"] == "passed"
    files = {Path(f.path).name for f in mlflow.MlflowClient().list_artifacts(run.info.run_id, "validation")}
    assert files >= {"report.html", "gates.json", "figures.csv", "groups.csv", "found_slices.csv", "drift_plot.png"}
    page = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/validation/report.html")
    if model_id:
        assert model_id in page
        of_model = mlflow.get_logged_model(model_id).metrics
        assert {m.key for m in of_model if m.run_id == run.info.run_id} >= {"accuracy", "psi.max", "gates.broken"}


def test_broken_gates_raise_an_error_that_names_each_after_everything_was_logged(store: str) -> None:
    gates = ["accuracy > 0.5", "worst_slice.recall >= 0.99", "gap.selection_rate <= 0.001 @ 95 %"]
    model = mlflow.pyfunc.load_model(logged(classifier())[0])
    with mlflow.start_run() as run, pytest.raises(GatesBrokenError) as caught:
        evaluate(model, data(), gates=gates, **EVERYTHING)
    error = caught.value
    assert isinstance(error, ModelValidationFailedException)
    assert error.error_code == "BAD_REQUEST"
    assert [v.gate.text for v in error.broken] == gates[1:]
    assert all(gate in error.message for gate in gates[1:])
    assert gates[0] not in error.message
    assert error.result.metrics["gates.broken"] == 2
    assert mlflow.get_run(run.info.run_id).data.tags["validation.gates"] == "broken"
    verdicts = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/validation/gates.json"))
    assert [g["passed"] for g in verdicts["gates"]] == [True, False, False]


def test_without_enforcement_broken_gates_are_only_recorded(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = data().assign(guess=data()["target"])
    assert evaluate(None, frame, gates=["accuracy < 0.5"], enforce=False).metrics["gates.broken"] == 1
    monkeypatch.setenv("MLFLOW_VALIDATION_ENFORCE", "false")
    assert evaluate(None, frame, gates=["accuracy < 0.5"]).metrics["gates.broken"] == 1


def test_mlflows_own_thresholds_work_on_the_result(store: str) -> None:
    from mlflow.models import MetricThreshold

    result = evaluate(None, data().assign(guess=data()["target"]), fairness={"columns": ["sex"]})
    strict = {"gap.selection_rate": MetricThreshold(threshold=1e-9, greater_is_better=False)}
    with pytest.raises(ModelValidationFailedException):
        mlflow.validate_evaluation_results(strict, result)


def test_several_classes_with_probabilities_from_the_model(store: str) -> None:
    result = evaluate(logged(classifier(3))[0], data(3), **EVERYTHING)
    assert {"roc_auc", "ece", "worst_slice.f1", "gap.recall", "robustness.noise.changed"} <= result.metrics.keys()
    frame = data(3).drop(columns="target")
    assert result.metrics["accuracy"] == pytest.approx(classifier(3).score(frame, data(3)["target"]))


def test_a_regressor_that_takes_missing_values(store: str) -> None:
    frame = data()[["x", "z"]].assign(target=data()["x"] * 2 + data()["z"])
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(frame[["x", "z"]], frame["target"])
    result = evaluate(logged(model)[0], frame, "regressor", robustness={"rows": 400}, slices=True)
    assert result.metrics["robustness.missing.drop"] > 0
    assert result.metrics["robustness.permutation.mae"] > result.metrics["mae"] >= 0


def test_what_a_model_refuses_is_an_answer(store: str) -> None:
    gates = ["robustness.missing.drop < 0.1"]
    with pytest.raises(GatesBrokenError, match="the model refuses it"):
        evaluate(logged(classifier())[0], data(), robustness={"checks": ["missing"], "rows": 100}, gates=gates)


def test_a_function_is_a_model_too(store: str) -> None:
    result = evaluate(lambda frame: (frame["x"] > 0).astype(int), data(), robustness={"rows": 100})
    assert result.metrics["accuracy"] == pytest.approx(((data()["x"] > 0) == data()["target"]).mean())


def test_a_model_may_give_probabilities_for_its_predictions(store: str) -> None:
    result = evaluate(lambda frame: classifier().predict_proba(frame[["x", "z", "plan"]]), data(), robustness=True)
    labels = evaluate(logged(classifier())[0], data())
    assert result.metrics["roc_auc"] == pytest.approx(labels.metrics["roc_auc"])
    assert result.metrics["accuracy"] == pytest.approx(labels.metrics["accuracy"])


def test_robustness_without_a_model_is_refused(store: str) -> None:
    with pytest.raises(MlflowException, match="give `model`"):
        evaluate(None, data().assign(guess=data()["target"]), robustness=True)


def test_the_callers_metrics_are_figures_of_gates(store: str) -> None:
    def share_of_paid(predictions: Any, targets: Any, plan: Any) -> float:
        return float(np.mean(plan == "paid"))

    metric = mlflow.models.make_metric(eval_fn=share_of_paid, greater_is_better=True)
    with pytest.raises(GatesBrokenError, match=r"share_of_paid > 0\.9"):
        mlflow.models.evaluate(
            data=data().assign(guess=data()["target"]), targets="target", predictions="guess",
            model_type="classifier", evaluators="validation", extra_metrics=[metric],
            evaluator_config={"gates": ["share_of_paid > 0.9"], "slices": False},
        )  # fmt: skip


def test_the_report_shows_what_is_in_the_data_as_text(store: str) -> None:
    """A column or a value may hold anything; in the report it is text, and nothing is loaded from elsewhere."""
    bad = "<script>alert(1)</script>"
    frame = data().assign(guess=data()["target"], **{bad: np.where(data()["x"] > 0, '"><img src=x>', "$x_1$ & y")})
    config = {"slices": {"columns": [bad]}, "fairness": {"columns": [bad]}, "drift": {"reference": frame}}
    with mlflow.start_run() as run:
        evaluate(None, frame, **config)
    page = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/validation/report.html")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "http:" not in page.replace("http://www.w3.org", "")
    assert "https:" not in page


def test_an_array_and_a_prefix(store: str) -> None:
    rng = np.random.default_rng(0)
    array, labels = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    result = mlflow.models.evaluate(
        lambda frame: (frame.iloc[:, 0] > 0).astype(int), array, targets=labels, model_type="classifier",
        evaluators="validation", evaluator_config={"metric_prefix": "val_", "plots": False, "report": False},
    )  # fmt: skip
    assert {"val_accuracy", "val_accuracy.lower"} <= result.metrics.keys()
    assert "validation_report" not in result.artifacts
