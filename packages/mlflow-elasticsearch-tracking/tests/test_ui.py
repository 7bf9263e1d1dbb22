"""MLflow's UI in a headless Chromium, against a server on this store and the registry beside it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from packaging.version import Version

from mlflow_plugkit.compat import mlflow_version
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.server import MlflowServer, plugin_env

pytestmark = pytest.mark.skipif(
    mlflow_version() < Version("3.14"), reason="the addresses and texts of the pages are those of MLflow 3.14 and newer"
)
#: The UI asks MLflow's authentication app who the user is; a server without that app answers 404, whatever its store.
NOT_THE_STORES = re.compile(r"/users/current$")
NOTICES = re.compile(r"ResizeObserver loop|status of 404")
SECONDS = 60_000


@dataclass(frozen=True)
class Filled:
    """A server whose store holds something for each page."""

    url: str
    experiment: str
    runs: list[str]
    trace: str


@pytest.fixture(scope="module")
def filled(prefixes: Prefixes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    pytest.importorskip("mlflow_elasticsearch_registry")
    folder = tmp_path_factory.mktemp("ui")
    options = ["--backend-store-uri", prefixes.fresh_uri(), "--artifacts-destination", (folder / "artifacts").as_uri()]
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    with MlflowServer(options, folder=folder, env=plugin_env()) as server:
        mlflow.set_tracking_uri(server.url)
        mlflow.set_registry_uri(server.url)
        try:
            yield Filled(server.url, *fill())
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])


def fill() -> tuple[str, list[str], str]:
    experiment = mlflow.set_experiment("churn").experiment_id
    runs = []
    for number in range(2):
        with mlflow.start_run(run_name=f"attempt-{number}") as run:
            mlflow.log_params({"depth": number, "rate": 0.1})
            for step in range(20):
                mlflow.log_metrics({"loss": 1 / (step + 1 + number), "accuracy": 1 - 1 / (step + 2)}, step=step)
            runs.append(run.info.run_id)
    client = MlflowClient()
    client.create_registered_model("churn-model")
    client.create_model_version("churn-model", f"runs:/{runs[0]}/model", runs[0])
    with mlflow.start_span("answer", span_type="AGENT") as root:
        root.set_inputs({"question": "why?"})
        with mlflow.start_span("look-up", span_type="TOOL"):
            pass
    mlflow.flush_trace_async_logging()
    return experiment, runs, root.trace_id


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("Chromium is not installed: apt-get install chromium, or playwright install chromium")
        # One context for all pages: they share the cache, and MLflow's bundle is megabytes.
        yield browser.new_context(viewport={"width": 1400, "height": 900})
        browser.close()


PAGES = {
    "experiments": ("/#/experiments", ["churn"]),
    "runs": ("/#/experiments/{experiment}/runs", ["attempt-0", "attempt-1"]),
    "run": ("/#/experiments/{experiment}/runs/{first}", ["attempt-0", "depth", "accuracy"]),
    "metric charts": ("/#/experiments/{experiment}/runs/{first}/model-metrics", ["loss", "accuracy"]),
    "charts of runs": ("/#/experiments/{experiment}/runs?compareRunsMode=CHART", ["attempt-1", "accuracy"]),
    "comparison": (
        "/#/compare-runs?runs=%5B%22{first}%22%2C%22{second}%22%5D&experiments=%5B%22{experiment}%22%5D",
        ["attempt-0", "attempt-1", "rate"],
    ),
    "traces": ("/#/experiments/{experiment}/traces", ["why?"]),
    "trace": ("/#/experiments/{experiment}/traces?selectedEvaluationId={trace}", ["answer", "look-up"]),
    "registered models": ("/#/models", ["churn-model"]),
    "registered model": ("/#/models/churn-model", ["Version 1"]),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_is_stored(name: str, filled: Filled, browser: Any, tmp_path: Path) -> None:
    """Without an error on its console and without a failed request. PLUGKIT_SCREENSHOTS keeps the pictures."""
    path, texts = PAGES[name]
    first, second = filled.runs
    values = {"experiment": filled.experiment, "first": first, "second": second, "trace": filled.trace}
    problems: list[str] = []
    page = browser.new_page()
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" and not NOTICES.search(m.text) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("response", lambda answer: problems.append(f"{answer.status} {answer.url}") if is_failure(answer) else None)
    page.goto(filled.url + path.format(**values), timeout=SECONDS)
    for text in texts:
        page.get_by_text(text).first.wait_for(timeout=SECONDS)
    page.wait_for_load_state("load")
    page.wait_for_timeout(500)  # what the page asks for last
    page.screenshot(path=str(Path(os.environ.get("PLUGKIT_SCREENSHOTS", tmp_path)) / f"{name}.png"))
    page.close()
    assert problems == []


def is_failure(answer: Any) -> bool:
    return answer.status >= 400 and not NOT_THE_STORES.search(answer.url)
