"""One measurement of speed: `python evaluator_speed.py TASK ROWS`; the last line of the output is JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

GROUPS = 50


def data(rows: int) -> pd.DataFrame:
    """30 columns of all types, labels, probabilities and predictions."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"number{i}": rng.normal(size=rows) for i in range(20)}
    columns |= {f"whole{i}": rng.integers(0, 100, rows) for i in range(3)}
    values = [f"v{j}" for j in range(8)]
    columns |= {f"category{i}": pd.Categorical.from_codes(rng.integers(0, 8, rows), values) for i in range(4)}
    columns["text"] = np.array([f"t{j}" for j in range(GROUPS)], object)[rng.integers(0, GROUPS, rows)]
    columns["flag"] = rng.random(rows) < 0.3
    columns["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, rows), "D")
    probability = 1 / (1 + np.exp(-columns["number0"] - columns["number1"]))
    columns["label"] = (rng.random(rows) < probability).astype(int)
    return pd.DataFrame(columns).assign(score=probability, guess=(probability > 0.5).astype(int))


def measured(work: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    spent = {"wall": round(time.perf_counter() - wall, 3), "cpu": round(time.process_time() - cpu, 3)}
    return spent | {"peak MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def through_mlflow(frame: pd.DataFrame, evaluator: str, cls: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The whole call, and the part that is spent in the evaluator: the rest is MLflow's record of the data set."""
    import mlflow

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("bench")
    inside: dict[str, float] = {}
    original = cls.evaluate

    def timed(self: Any, **kwargs: Any) -> Any:
        results: list[Any] = []
        inside.update(measured(lambda: results.append(original(self, **kwargs))))
        return results[0]

    cls.evaluate = timed
    whole = measured(
        lambda: mlflow.models.evaluate(
            data=frame, predictions="guess", targets="label", model_type="classifier", evaluators=evaluator,
            evaluator_config=config,
        )
    )  # fmt: skip
    return inside | {"whole call, wall": whole["wall"], "whole call, cpu": whole["cpu"]}


def evaluate(frame: pd.DataFrame) -> dict[str, Any]:
    """All sections but robustness, which is the model's time: 30 columns searched, compared and grouped."""
    from mlflow_validation_evaluator.evaluator import ValidationEvaluator

    reference = frame.drop(columns=["label", "guess", "score"])
    config = {
        "scores": "score", "slices": {"columns": ["category0"]}, "fairness": {"columns": ["category1", "text"]},
        "drift": {"reference": reference.sample(len(frame), random_state=1, replace=True).reset_index(drop=True)},
        "gates": ["worst_slice.recall >= 0.1", "psi.max < 0.2", "gap.selection_rate <= 0.1 @ 95 %"],
    }  # fmt: skip
    return through_mlflow(frame, "validation", ValidationEvaluator, config)


def default(frame: pd.DataFrame) -> dict[str, Any]:
    """MLflow's own evaluator; it knows no slices, groups, drift or intervals."""
    from mlflow.models.evaluation.evaluators.classifier import ClassifierEvaluator

    frame = frame.assign(text=frame["text"].astype(object)).drop(columns="score")
    return through_mlflow(frame, "default", ClassifierEvaluator, {"log_model_explainability": False})


def groups(frame: pd.DataFrame) -> dict[str, float]:
    """Nine metrics of 50 groups with intervals, gaps and ratios."""
    from mlflow_validation_evaluator import checks

    return measured(lambda: checks.group_gaps(frame["label"], frame["guess"], frame["text"]))


def frame(frame: pd.DataFrame) -> dict[str, float]:
    """Six of those metrics, gaps and ratios by fairlearn's MetricFrame, without intervals."""
    from fairlearn import metrics as fair
    from sklearn import metrics as sk

    chosen = {
        "selection_rate": fair.selection_rate, "accuracy": sk.accuracy_score, "precision": sk.precision_score,
        "recall": sk.recall_score, "f1": sk.f1_score, "false_positive_rate": fair.false_positive_rate,
    }  # fmt: skip

    def work() -> None:
        found = fair.MetricFrame(
            metrics=chosen, y_true=frame["label"], y_pred=frame["guess"], sensitive_features=frame["text"]
        )
        found.difference()
        found.ratio()

    return measured(work)


def intervals(frame: pd.DataFrame) -> dict[str, float]:
    """All twelve figures of a binary classifier with intervals, on the first 20,000 rows; per interval."""
    from mlflow_validation_evaluator import checks

    part = frame.head(20_000)
    found = measured(lambda: checks.figures(part["label"], part["guess"], part["score"]))
    return {"wall": round(found["wall"] / 12, 4), "cpu": round(found["cpu"] / 12, 4), "peak MB": found["peak MB"]}


def scipy(frame: pd.DataFrame) -> dict[str, float]:
    """`scipy.stats.bootstrap` (BCa, 2,000 resamples) of one figure, the Brier score, on the same rows."""
    from scipy import stats

    part = frame.head(20_000)
    squares = (part["score"] - part["label"]).to_numpy() ** 2
    return measured(lambda: stats.bootstrap((squares,), np.mean, n_resamples=2000, batch=100, random_state=0))


TASKS: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
    "evaluate": evaluate, "default": default, "groups": groups, "frame": frame, "intervals": intervals, "scipy": scipy,
}  # fmt: skip

if __name__ == "__main__":
    task, rows = sys.argv[1], int(sys.argv[2])
    print(json.dumps({task: TASKS[task](data(rows))}))
