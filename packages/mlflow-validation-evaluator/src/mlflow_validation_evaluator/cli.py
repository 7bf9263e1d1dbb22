"""The command `mlflow-validation`, for CI: exit code 0 where all gates hold, 1 where one is broken, 2 for an error."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click


@click.group()
def main() -> None:
    """Validate models. Exit code 0: all gates hold; 1: a gate is broken; 2: it could not be evaluated."""


@main.command()
@click.option("--model", "model_uri", help="URI of the model; without it the data hold the predictions.")
@click.option("--data", required=True, type=click.Path(exists=True, dir_okay=False), help="Parquet or CSV file.")
@click.option("--targets", required=True, help="Column with the labels.")
@click.option("--predictions", help="Column with the predictions, where there is no model.")
@click.option("--model-type", type=click.Choice(["classifier", "regressor"]), default="classifier", show_default=True)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="JSON file with the configuration.")
@click.option("--reference", type=click.Path(exists=True, dir_okay=False), help="Reference data for drift.")
@click.option("--gate", "gates", multiple=True, help="A gate, beside those of the configuration.")
@click.option("--run-id", help="Log to this run instead of a new one.")
@click.option("--model-id", help="Id of the logged model that the metrics belong to, where no model is given.")
def evaluate(
    model_uri: str | None, data: str, targets: str, predictions: str | None, model_type: str, config: str | None,
    reference: str | None, gates: tuple[str, ...], run_id: str | None, model_id: str | None,
) -> None:  # fmt: skip
    """Evaluate a model on a file, log the report to a run, and judge the gates."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from mlflow_plugkit.compat import supported_kwargs
    from mlflow_validation_evaluator.broken import GatesBrokenError
    from mlflow_validation_evaluator.drift import read_reference

    if not model_uri and not predictions:
        _fail("Give --model, or --predictions with the column that holds them.")
    try:
        given = _configuration(config, reference, gates)
        about = supported_kwargs(mlflow.models.evaluate, {"model_id": model_id} if model_id else {})
        with mlflow.start_run(run_id=run_id) as run:
            click.echo(f"run {run.info.run_id}")
            mlflow.models.evaluate(
                model_uri, read_reference(data, "data"), targets=targets, predictions=predictions,
                model_type=model_type, evaluators="validation", evaluator_config=given, **about,
            )  # fmt: skip
    except GatesBrokenError as exc:
        click.echo(exc.message, err=True)
        sys.exit(1)
    except MlflowException as exc:
        _fail(exc.message)
    except Exception as exc:  # noqa: BLE001 # the model's own code may raise anything, and that breaks no gate
        traceback.print_exc()
        _fail(f"It could not be evaluated: {type(exc).__name__}: {exc}")
    click.echo("All gates hold.")


@main.command()
@click.argument("run_id")
def check(run_id: str) -> None:
    """Judge the gates of a run that was evaluated before, from its artifact validation/gates.json."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        found = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/validation/gates.json"))
    except (MlflowException, OSError) as exc:
        _fail(f"The run {run_id} holds no validation/gates.json: {exc}")
    for gate in found["gates"]:
        shown = gate["reason"] or gate["measured"]
        click.echo(f"{'holds ' if gate['passed'] else 'BROKEN'}  {gate['gate']}   ({shown})")
    if not found["gates"]:
        click.echo("No gates were set.")
    sys.exit(0 if found["passed"] else 1)


def _configuration(config: str | None, reference: str | None, gates: tuple[str, ...]) -> dict[str, Any]:
    try:
        given = json.loads(Path(config).read_text(encoding="utf-8")) if config else {}
    except ValueError as exc:
        _fail(f"The file {config!r} is no JSON: {exc}.")
    if not isinstance(given, dict):
        _fail(f"The file {config!r} holds no JSON object.")
    from mlflow_validation_evaluator.settings import NAME

    nested = given.get(NAME)
    if set(given) == {NAME} and isinstance(nested, dict):
        given = nested
    if reference:
        drift = given.get("drift")
        given["drift"] = {**(drift if isinstance(drift, dict) else {}), "reference": reference}
    if gates:
        those = given.get("gates", [])
        given["gates"] = [*([those] if isinstance(those, str) else those), *gates]
    return given


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)
