"""The configuration is checked in full before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from mlflow_validation_evaluator.evaluator import check_gates
from mlflow_validation_evaluator.settings import PARTS, Config, keys_table, read_config

README = Path(__file__).resolve().parent.parent / "README.md"


def refusal(given: dict[str, Any]) -> str:
    with pytest.raises(MlflowException) as caught:
        read_config(given, {})
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return str(caught.value.message)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"slice": True}, "Did you mean 'slices'?"),
        ({"slices": {"colums": ["a"]}}, "Unknown key 'slices.colums'"),
        ({"slices": {"colums": ["a"]}}, "Did you mean 'columns'?"),
        ({"confidence": 95}, "'confidence' is wrong"),
        ({"confidence": "high"}, "'confidence' is wrong"),
        ({"slices": {"depth": 3}}, "'slices.depth' is wrong"),
        ({"robustness": {"checks": ["noises"]}}, "'robustness.checks"),
        ({"drift": {}}, "no 'reference'"),
        ({"drift": {"reference": 3}}, "a pandas DataFrame or the path of a file"),
        ({"fairness": True}, "no 'columns'"),
        ({"fairness": {"columns": ["a"], "functions": {"f": 1}}}, "is no function"),
        ({"gates": ["psi.max < 0.2"]}, "needs the key 'drift'"),
        ({"gates": ["gap.recall < 0.2"]}, "needs the key 'fairness'"),
        ({"gates": ["robustness.noise.drop < 0.2"]}, "needs the key 'robustness'"),
        ({"slices": False, "gates": ["worst_slice.recall > 0.2"]}, "needs the key 'slices'"),
        ({"gates": ["recall > 0.2 @ 99.9 %"]}, "'resamples' of at least 20001"),
        ({"gates": 0.2}, "'gates' is wrong: Input should be a list"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], words: str) -> None:
    assert words in refusal(given)


def test_sample_weights_are_refused_not_ignored() -> None:
    with pytest.raises(MlflowException, match="not supported") as caught:
        read_config({"sample_weights": [1, 2]}, {})
    assert caught.value.error_code == "NOT_IMPLEMENTED"


def test_keys_of_mlflows_own_evaluators_are_left_to_them() -> None:
    assert read_config({"log_model_explainability": False, "pos_label": 1, "gates": []}, {}).pos_label == 1


def test_the_nested_form_is_understood_as_well() -> None:
    assert read_config({"validation": {"seed": 7}}, {}).seed == 7


def test_numpy_scalars_are_numbers_and_switches_are_sections() -> None:
    config = read_config({"pos_label": np.int64(1), "slices": False, "robustness": True, "label_list": [0, 1]}, {})
    assert (config.pos_label, config.slices) == (1, None)
    assert config.robustness.rows == 5000


def test_defaults_come_from_the_file_that_the_environment_names(tmp_path: Path) -> None:
    file = tmp_path / "defaults.json"
    file.write_text(json.dumps({"gates": ["recall > 0.5"], "seed": 3}))
    config = read_config({"seed": 4}, {"MLFLOW_VALIDATION_CONFIG": str(file), "MLFLOW_VALIDATION_ENFORCE": "false"})
    assert (config.gates, config.seed, config.enforce) == (("recall > 0.5",), 4, False)
    file.write_text("[1]")
    with pytest.raises(MlflowException, match="holds no JSON object"):
        read_config({}, {"MLFLOW_VALIDATION_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("recal > 0.5", "Did you mean 'recall'?"),
        ("worst_slice.recal > 0.5", "Did you mean 'worst_slice.recall'?"),
        ("gap.selection > 0.5", "Did you mean 'gap.selection_rate'?"),
        ("ratio.equalized_odds > 0.5", "Did you mean"),
        ("slices.fond < 3", "Did you mean 'slices.found'?"),
        ("r2 > 0.5", "a binary model does not have"),
        ("worst_slice > 0.5", "worst_slice"),
    ],
)
def test_a_gate_on_an_unknown_figure_names_the_nearest(gate: str, words: str) -> None:
    config = read_config({"gates": [gate], "fairness": {"columns": ["group"]}}, {})
    with pytest.raises(MlflowException, match="names a figure") as caught:
        check_gates(config, cases.binary(50), [])
    assert words in caught.value.message


@pytest.mark.parametrize("part", [Config, *PARTS.values()], ids=lambda part: part.__name__)
def test_the_readme_lists_every_key(part: Any) -> None:
    assert keys_table(part) in README.read_text(encoding="utf-8")
