"""The model evaluator: `mlflow.models.evaluate(..., evaluators="validation")`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

from mlflow_plugkit.compat import choosing_among_all_evaluators

if TYPE_CHECKING:
    from mlflow_validation_evaluator.figures import Figure, Section
    from mlflow_validation_evaluator.outcome import Outcome
    from mlflow_validation_evaluator.settings import Config


class ValidationEvaluator(ModelEvaluator):
    """`mlflow.models.evaluate(..., evaluators="validation", evaluator_config={...})`.

    It logs metrics, tables, plots and a report to the run, and then raises `GatesBrokenError` if a gate is broken.
    The keys of the configuration are those of `settings.Config`.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: dict[str, Any] | None, **_: Any) -> bool:
        """True for classifiers and regressors, but only where the user named or configured this evaluator."""
        from mlflow_validation_evaluator.settings import is_configured

        wanted = is_configured(evaluator_config) or not choosing_among_all_evaluators()
        return model_type in ("classifier", "regressor") and wanted

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: dict[str, Any] | None,
        model: Any = None,
        predictions: str | None = None,
        extra_metrics: Any = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Evaluate, log, and judge.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a configuration or data that cannot be evaluated.
            GatesBrokenError: a gate is broken, and `enforce` is on.
        """
        from mlflow_validation_evaluator.broken import GatesBrokenError
        from mlflow_validation_evaluator.gates import judge
        from mlflow_validation_evaluator.reading import read_outcome
        from mlflow_validation_evaluator.recording import Recorder
        from mlflow_validation_evaluator.settings import read_config
        from mlflow_validation_evaluator.users import user_figures

        config = read_config(evaluator_config)
        outcome = read_outcome(model, model_type, dataset, predictions, config)
        extra = user_figures(extra_metrics, outcome)
        check_gates(config, outcome, [f.name for f in extra])
        headline, sections = examine(outcome, config, dataset.targets_name)
        headline += extra
        figures = {f.name: f for f in [*headline, *(f for s in sections for f in s.figures)]}
        verdicts = judge(config.parsed_gates, figures)
        recorder = Recorder(run_id, kwargs.get("model_id"), model, dataset, config)
        result = recorder.record(outcome, headline, sections, verdicts)
        broken = [v for v in verdicts if not v.passed]
        if broken and config.enforce is not False:
            raise GatesBrokenError(broken, run_id, result)
        return result


def examine(outcome: Outcome, config: Config, targets: str | None = None) -> tuple[list[Figure], list[Section]]:
    """Headline figures and sections of an outcome; nothing is logged."""
    from mlflow_validation_evaluator.calibration import calibration
    from mlflow_validation_evaluator.drift import drift
    from mlflow_validation_evaluator.groups import fairness
    from mlflow_validation_evaluator.headline import headline as headline_of
    from mlflow_validation_evaluator.robustness import robustness
    from mlflow_validation_evaluator.slices import slices

    headline = headline_of(outcome, config.resamples, config.seed)
    sections: list[Section] = []
    if config.slices:
        sections.append(slices(outcome, config))
    if config.fairness:
        sections.append(fairness(outcome, config))
    if config.calibration and (section := calibration(outcome, config)):
        sections.append(section)
        headline += [f for f in section.figures if f.headline]
    if config.drift:
        sections.append(drift(outcome, config, targets))
    if config.robustness:
        sections.append(robustness(outcome, config))
    if sections:
        sections[0].notes = outcome.notes + sections[0].notes
    return headline, sections


def check_gates(config: Config, outcome: Outcome, extra: list[str]) -> None:
    """Refuse gates on figures that this kind of model does not have, before anything is computed."""
    from mlflow_plugkit.errors import mlflow_error
    from mlflow_validation_evaluator.headline import names
    from mlflow_validation_evaluator.settings import nearest

    plain = names(outcome) + extra
    functions = list(config.fairness.functions) if config.fairness else []
    compared = [*outcome.metrics, *functions, *(["equalized_odds"] if outcome.kind == "binary" else [])]
    known = {"worst_slice": outcome.metrics, "gap": compared, "ratio": [*outcome.metrics, *functions]}
    known |= {"ks": ["max"], "js": ["max"], "drift": ["columns", "share"], "slices": ["found"]}
    for gate in config.parsed_gates:
        family, dot, rest = gate.figure.partition(".")
        if family in known and dot:
            if rest.partition(".")[0] in known[family]:
                continue
            choices = [f"{family}.{name}" for name in known[family]]
        elif gate.figure in plain or family in ("psi", "robustness"):
            continue
        else:
            choices = plain + [f"{family}.{name}" for family in known for name in known[family]]
        raise mlflow_error(
            f"The gate {gate.text!r} names a figure that a {outcome.kind} model does not have here. "
            f"{nearest(gate.figure, choices, 'Figures')}"
        )
