"""What is logged: metrics with the model's id, tables, plots, the verdicts and the report, under `validation/`."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.models import EvaluationResult
from mlflow.models.evaluation.artifacts import (
    CsvEvaluationArtifact,
    ImageEvaluationArtifact,
    JsonEvaluationArtifact,
    TextEvaluationArtifact,
)
from mlflow.utils.time import get_current_time_millis

from mlflow_plugkit.compat import supported_kwargs
from mlflow_validation_evaluator.figures import Figure, Section
from mlflow_validation_evaluator.gates import Verdict
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.settings import Config

FOLDER = "validation"
TAG = "validation.gates"
IN_A_BATCH = 500
DETAILS = 400
"""With more figures of single columns than this, those are in the tables only."""
KINDS: dict[str, Any] = {
    ".csv": CsvEvaluationArtifact,
    ".json": JsonEvaluationArtifact,
    ".png": ImageEvaluationArtifact,
    ".html": TextEvaluationArtifact,
}


class Recorder:
    """Logs one evaluation to its run."""

    def __init__(self, run_id: str, model_id: str | None, model: Any, dataset: Any, config: Config) -> None:
        self._client, self._run_id, self._model_id = MlflowClient(), run_id, model_id
        self._model, self._dataset, self._config = model, dataset, config

    def record(
        self, outcome: Outcome, headline: list[Figure], sections: list[Section], verdicts: list[Verdict]
    ) -> EvaluationResult:
        """Log everything.

        Returns:
            What MLflow expects of an evaluator: the metrics by key, and the artifacts.
        """
        if self._config.plots:
            from mlflow_validation_evaluator.plots import draw

            draw(sections, outcome, headline, self._config.confidence)
        metrics = dict(self._metrics(headline, sections, verdicts))
        with tempfile.TemporaryDirectory(prefix="mlflow-validation-") as folder:
            self._write(Path(folder), outcome, headline, sections, verdicts)
            contents = {p.name: _content(p) for p in sorted(Path(folder).iterdir())}
            self._client.log_artifacts(self._run_id, folder, FOLDER)
        self._log(metrics, verdicts)
        root = self._client.get_run(self._run_id).info.artifact_uri
        artifacts = {
            f"{FOLDER}_{Path(name).stem}": KINDS[Path(name).suffix](f"{root}/{FOLDER}/{name}", content)
            for name, content in contents.items()
        }
        return EvaluationResult(metrics, artifacts, run_id=self._run_id)

    def _metrics(
        self, headline: Sequence[Figure], sections: Sequence[Section], verdicts: Sequence[Verdict]
    ) -> Iterator[tuple[str, float]]:
        """Keys and values; figures that are undefined are left out."""
        used: set[str] = set()
        figures = [f for f in _everything(headline, sections) if f.is_defined]
        if sum(f.detail for f in figures) > DETAILS:
            figures = [f for f in figures if not f.detail]
        for figure in figures:
            key = _key(self._config.metric_prefix + figure.name, used)
            yield key, figure.value
            bounds = None if figure.detail else figure.bounds(self._config.confidence)
            if bounds and all(math.isfinite(b) for b in bounds):
                yield f"{key}.lower", bounds[0]
                yield f"{key}.upper", bounds[1]
        if verdicts:
            yield f"{self._config.metric_prefix}gates.broken", float(sum(not v.passed for v in verdicts))

    def _log(self, metrics: dict[str, float], verdicts: Sequence[Verdict]) -> None:
        about = supported_kwargs(
            Metric.__init__,
            {
                "model_id": self._model_id,
                "dataset_name": self._dataset.name,
                "dataset_digest": getattr(self._dataset, "digest", None),  # not there before MLflow 3
                "run_id": self._run_id,
            },
        )
        now = get_current_time_millis()
        entities = [Metric(key, value, now, 0, **about) for key, value in metrics.items()]
        for start in range(0, len(entities), IN_A_BATCH):
            self._client.log_batch(self._run_id, metrics=entities[start : start + IN_A_BATCH])
        if verdicts:
            passed = all(v.passed for v in verdicts)
            self._client.log_batch(self._run_id, tags=[RunTag(TAG, "passed" if passed else "broken")])

    def _write(
        self, folder: Path, outcome: Outcome, headline: list[Figure], sections: list[Section], verdicts: list[Verdict]
    ) -> None:
        level = self._config.confidence
        figures_frame(_everything(headline, sections), level).to_csv(folder / "figures.csv", index=False)
        for section in sections:
            for name, table in section.tables.items():
                table.to_csv(folder / f"{name}.csv", index=False)
            for name, plot in section.plots.items():
                (folder / f"{name}.png").write_bytes(plot)
        facts = self._facts(outcome)
        gates = {"passed": all(v.passed for v in verdicts), "gates": [v.plain() for v in verdicts], "about": facts}
        (folder / "gates.json").write_text(json.dumps(gates, indent=1), encoding="utf-8")
        if self._config.report:
            from mlflow_validation_evaluator.report import render

            page = render(facts, headline, sections, verdicts, level)
            (folder / "report.html").write_text(page, encoding="utf-8")

    def _facts(self, outcome: Outcome) -> dict[str, str]:
        metadata = getattr(self._model, "metadata", None)
        known = self._model_id or getattr(metadata, "model_uuid", None)
        kind = "regressor" if outcome.kind == "regression" else f"{outcome.kind} classifier"
        name = str(known) if known else "given predictions" if self._model is None else "a function"
        facts = {"Model": name, "Kind": kind}
        if outcome.kind == "binary":
            facts["Positive class"] = str(outcome.classes[1])
        return facts | {"Data": f"{self._dataset.name}, {outcome.rows:,} rows", "Run": self._run_id}


def figures_frame(figures: Sequence[Figure], level: float) -> pd.DataFrame:
    """All figures as a table."""
    rows = []
    for figure in figures:
        low, high = figure.bounds(level) or (float("nan"), float("nan"))
        rows.append({"figure": figure.name, "value": figure.value, "lower": low, "upper": high, "level": level,
                     "about": figure.about or figure.undefined, "interval": figure.method})  # fmt: skip
    return pd.DataFrame(rows)


def _key(name: str, used: set[str]) -> str:
    """A key that every MLflow takes: other characters become underscores, and no two figures share one."""
    key = re.sub(r"[^\w.\- /]", "_", name)[:230]
    number = 2
    candidate = key
    while candidate in used:
        candidate, number = f"{key}_{number}", number + 1
    used.add(candidate)
    return candidate


def _everything(headline: Sequence[Figure], sections: Sequence[Section]) -> list[Figure]:
    return [*headline, *(f for s in sections for f in s.figures if not f.headline)]


def _content(path: Path) -> Any:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            image.load()
            return image.copy()
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else text
