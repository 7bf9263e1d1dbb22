"""Data for the tests: outcomes with known properties, made from a seed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.reading import read_outcome
from mlflow_validation_evaluator.settings import read_config


def config(**given: Any) -> Any:
    return read_config(given, {})


def binary(n: int = 1000, seed: int = 0) -> Outcome:
    """A classifier whose probabilities are too bold, and three groups of different rates."""
    rng = np.random.default_rng(seed)
    group = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    score = rng.normal(size=n) + 0.5 * (group == 1) - 0.4 * (group == 2)
    truth = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(np.int32)
    proba = 1 / (1 + np.exp(-1.5 * score - 0.2))
    features = pd.DataFrame({"group": np.array(["a", "b", "c"])[group], "score": score})
    return Outcome("binary", features, truth, (proba >= 0.5).astype(np.int32), proba, (0, 1))


def multiclass(n: int = 1000, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4)) * 1.2 + np.array([0.8, 0.3, 0, -0.5])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = (p.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1).astype(np.int32)
    bold = np.exp(1.4 * z) / np.exp(1.4 * z).sum(axis=1, keepdims=True)
    features = pd.DataFrame({"group": rng.choice(list("abc"), n)})
    return Outcome("multiclass", features, truth, bold.argmax(axis=1).astype(np.int32), bold, (0, 1, 2, 3))


def regression(n: int = 1000, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    x, group = rng.normal(size=n), rng.choice(3, n, p=[0.5, 0.3, 0.2])
    truth = 2 * x + rng.normal(size=n) * (1 + 0.5 * (group == 2))
    features = pd.DataFrame({"group": np.array(["a", "b", "c"])[group], "x": x})
    return Outcome("regression", features, truth, 1.9 * x + 0.1 * (group == 1) + 0.05)


def read(labels: Any, predictions: Any, features: Any = None, kind: str = "classifier", **given: Any) -> Outcome:
    """An outcome as the evaluator reads it from MLflow's data set, without a model."""
    frame = pd.DataFrame({"x": range(len(labels))}) if features is None else features
    dataset = SimpleNamespace(
        features_data=frame, labels_data=np.asarray(labels), predictions_data=np.asarray(predictions)
    )
    return read_outcome(None, kind, dataset, None, config(**given))


def read_model(labels: Any, output: Any, predictions: str | None = None, **given: Any) -> Outcome:
    """An outcome as it is read from a model with this output."""
    dataset = SimpleNamespace(
        features_data=pd.DataFrame({"x": range(len(labels))}), labels_data=np.asarray(labels), predictions_data=None
    )
    model = SimpleNamespace(predict=lambda _: output)
    return read_outcome(model, "classifier", dataset, predictions, config(**given))


def planted(seed: int, n: int, kind: str, *, with_slice: bool = True) -> tuple[Outcome, Any]:
    """Ten columns, and errors that are more frequent (or larger) in one slice of one or two conditions.

    Returns:
        The outcome, and which rows are in the slice.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        f"text{i}": rng.choice([f"v{j}" for j in range(rng.integers(2, 7))], n) for i in range(4)
    }
    columns |= {f"number{i}": rng.normal(size=n) + (columns["text0"] == "v1") * 0.3 for i in range(4)}
    columns["flag"] = rng.random(n) < 0.3
    columns["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), "D")
    frame = pd.DataFrame(columns)
    text, other, number = (f"text{seed % 4}", f"text{(seed + 1) % 4}", frame[f"number{seed % 3}"])
    value = frame[text] == rng.choice(frame[text].unique())
    forms = (
        value,
        value & (frame[other] == rng.choice(frame[other].unique())),
        number > number.quantile(0.75),
        value & (number < number.quantile(0.55)),
    )
    inside = forms[seed // 4 % 4].to_numpy() if with_slice else np.zeros(n, bool)
    if kind == "binary":
        truth = (rng.random(n) < 0.4).astype(np.int32)
        wrong = rng.random(n) < np.where(inside, 0.35, 0.1)
        return Outcome("binary", frame, truth, np.where(wrong, 1 - truth, truth).astype(np.int32), None, (0, 1)), inside
    truth = rng.normal(size=n) * 3
    error = rng.standard_t(4, size=n) * np.where(inside, 1.8, 1)
    return Outcome("regression", frame, truth, truth + error), inside
