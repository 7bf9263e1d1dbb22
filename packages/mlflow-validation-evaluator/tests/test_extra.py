"""The checks as metrics of MLflow's own evaluator, and as a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException

from mlflow_validation_evaluator import checks, extra
from mlflow_validation_evaluator.cli import main


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    score = rng.random(400)
    found = pd.DataFrame({"x": rng.normal(size=400), "score": score, "sex": rng.choice(["f", "m"], 400)})
    found["target"] = (rng.random(400) < score).astype(int)
    found["guess"] = ((score > 0.5) | (found["sex"] == "m") & (score > 0.4)).astype(int)
    return found


def test_mlflows_evaluator_computes_them(store: str, frame: pd.DataFrame) -> None:
    frame["sex"] = frame["sex"].astype(object)
    metrics = [
        extra.gap("selection_rate", by="sex"), extra.ratio("recall", by="sex"), extra.worst_slice("accuracy", by="sex"),
        extra.ece("score"), extra.brier("score"), extra.psi("x", frame["x"] + 1),
    ]  # fmt: skip
    config = {"log_model_explainability": False}
    found = mlflow.models.evaluate(
        data=frame, targets="target", predictions="guess", model_type="classifier", extra_metrics=metrics,
        evaluators="default", evaluator_config=config,
    ).metrics  # fmt: skip
    rates = frame.groupby("sex")["guess"].mean()
    assert found["gap_selection_rate_by_sex"] == pytest.approx(rates.max() - rates.min())
    assert found["brier"] == pytest.approx(((frame["score"] - frame["target"]) ** 2).mean())
    assert found["ece"] == pytest.approx(checks.expected_calibration_error(frame["target"], frame["score"]))
    assert found["psi_x"] > 0.5
    assert 0 < found["worst_accuracy_by_sex"] < 1
    assert 0 < found["ratio_recall_by_sex"] <= 1


def test_a_column_that_is_no_identifier_is_refused() -> None:
    with pytest.raises(MlflowException, match="col_mapping"):
        extra.gap("recall", by="marital status")


def test_plain_functions_need_no_mlflow_run(frame: pd.DataFrame) -> None:
    table = checks.figures(frame["target"], frame["guess"], frame["score"], level=0.9).set_index("figure")
    assert (table["lower"] <= table["value"]).all()
    assert (table["value"] <= table["upper"]).all()
    assert checks.drift_table(frame, frame.assign(x=frame["x"] + 2)).loc[0, "column"] == "x"
    with pytest.raises(MlflowException, match="400 labels"):
        checks.figures(frame["target"], frame["guess"][:10])
    with pytest.raises(MlflowException, match="between 0 and 1"):
        checks.expected_calibration_error(frame["target"], frame["score"] + 1)


class _Raising(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        raise ValueError("not this")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


def test_the_command_ends_with_what_the_gates_say(store: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    data = tmp_path / "data.parquet"
    frame.to_parquet(data)
    config = tmp_path / "gates.json"
    config.write_text(json.dumps({"gates": ["accuracy > 0.5"], "resamples": 500}))
    common = ("evaluate", "--data", str(data), "--targets", "target", "--predictions", "guess", "--config", str(config))
    nested = tmp_path / "nested.json"
    nested.write_text(json.dumps({"validation": {"gates": "accuracy > 0.5", "resamples": 500}}))
    code, output = run(*common[:-1], str(nested), "--gate", "recall > 0.1")
    assert (code, "All gates hold." in output) == (0, True), output
    code, output = run(*common, "--reference", str(data), "--gate", "psi.max < 0.2")
    assert (code, "All gates hold." in output) == (0, True)
    first = output.split()[1]
    code, output = run(*common, "--gate", "recall > 0.999 @ 95 %")
    assert code == 1
    assert "recall > 0.999 @ 95 %" in output
    second = output.split()[1]
    assert run("check", first)[0] == 0
    code, output = run("check", second)
    assert (code, "BROKEN  recall > 0.999 @ 95 %" in output) == (1, True)


def test_the_command_tells_an_error_from_a_broken_gate(store: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    frame.to_csv(data, index=False)
    common = ("evaluate", "--data", str(data), "--targets", "target")
    assert run(*common)[0] == 2
    code, output = run(*common, "--predictions", "guess", "--gate", "recal > 0.5")
    assert (code, "Did you mean 'recall'?" in output) == (2, True)
    with mlflow.start_run() as other:
        pass
    (tmp_path / "empty.csv").write_text("x,target\n")
    code, output = run("evaluate", "--data", str(tmp_path / "empty.csv"), *common[3:], "--predictions", "x")
    assert (code, "The data has no rows." in output) == (2, True)
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=_Raising())
    code, output = run(*common, "--model", str(tmp_path / "model"))
    assert (code, "It could not be evaluated: ValueError: not this" in output) == (2, True)
    code, output = run("check", other.info.run_id)
    assert (code, "holds no validation/gates.json" in output) == (2, True)
