"""The error of broken gates."""

from __future__ import annotations

from typing import Any

from mlflow.models.evaluation.validation import ModelValidationFailedException

from mlflow_validation_evaluator.gates import Verdict


class GatesBrokenError(ModelValidationFailedException):  # type: ignore[misc]
    """At least one gate is broken. Everything was logged before it is raised.

    A subclass of what `mlflow.validate_evaluation_results` raises, with the error code `BAD_REQUEST`.

    Attributes:
        broken: the verdicts on the broken gates.
        run_id: where the report is.
        result: the `EvaluationResult` that `mlflow.models.evaluate` would have returned.
    """

    def __init__(self, broken: list[Verdict], run_id: str, result: Any = None) -> None:
        lines = "\n".join(f"- {verdict.sentence()}" for verdict in broken)
        count = "1 gate is" if len(broken) == 1 else f"{len(broken)} gates are"
        super().__init__(  # type: ignore[no-untyped-call]
            f"The model does not pass: {count} broken.\n{lines}\nThe report is the artifact "
            f"validation/report.html of the run {run_id}."
        )
        self.broken, self.run_id, self.result = broken, run_id, result
