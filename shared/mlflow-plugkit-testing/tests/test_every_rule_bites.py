"""Each rule of the kit is held against a deliberately broken plugin that it must catch.

The files in `broken/` hold one test class per broken plugin. Its `breaks` names the rules that must
fail for it, each with a piece of the failure's text, so that a rule which fails for another reason, or
whose check was deleted, is noticed here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mlflow_plugkit_testing
from mlflow_plugkit_testing.suite import ConformanceSuite, rules_of

HERE = Path(__file__).parent
BROKEN = sorted((HERE / "broken").glob("broken_*.py"))

RECORDER = """
import json, os, pytest
results = {}
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    key = f"{item.cls.__name__}::{item.originalname}"
    if report.when == "call" or report.failed or report.skipped:
        text = str(report.longrepr) if report.longrepr else ""
        results.setdefault(key, []).append([report.when, report.outcome, text])
    return report
def pytest_sessionfinish():
    with open(os.environ["RECORDER_FILE"], "w") as f:
        json.dump(results, f)
"""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def broken_plugins(path: Path) -> list[type[ConformanceSuite]]:
    return [c for c in vars(load(path)).values() if isinstance(c, type) and "breaks" in vars(c)]


@pytest.mark.parametrize("path", BROKEN, ids=lambda p: p.stem)
def test_each_broken_plugin_is_caught_by_its_rules(path: Path, tmp_path: Path) -> None:
    wanted = {f"{c.__name__}::{rule}": text for c in broken_plugins(path) for rule, text in c.breaks.items()}
    (tmp_path / "plugkit_recorder.py").write_text(RECORDER)
    env = {
        **os.environ,
        "RECORDER_FILE": str(tmp_path / "results.json"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(path.parent), os.environ.get("PYTHONPATH", "")]),
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "plugkit_recorder", "-p", "no:cacheprovider", "-o", "addopts=",
         "--import-mode=importlib", "--tb=short", *(f"{path}::{node}" for node in wanted)],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    results_file = tmp_path / "results.json"
    assert results_file.exists(), run.stdout[-4000:] + run.stderr[-4000:]
    results = json.loads(results_file.read_text())
    problems = []
    for node, text in wanted.items():
        reports = results.get(node, [])
        if reports and all(o == "skipped" and "this MLflow" in why for _, o, why in reports):
            continue
        if not any(when == "call" and outcome == "failed" and text in why for when, outcome, why in reports):
            shown = "\n".join(f"    {when} {outcome}: {why[-600:]}" for when, outcome, why in reports)
            problems.append(f"{node} did not fail with {text!r}:\n{shown or '    it did not run'}")
    assert not problems, "\n".join(problems) + "\n" + run.stdout[-2000:]


def test_every_rule_of_the_kit_has_a_broken_plugin() -> None:
    covered = {
        (rules_of(suite)[rule].__name__, rule)
        for path in BROKEN
        for suite in broken_plugins(path)
        for rule in suite.breaks
    }
    rules = set()
    for info in pkgutil.iter_modules(mlflow_plugkit_testing.__path__):
        module = importlib.import_module(f"mlflow_plugkit_testing.{info.name}")
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, ConformanceSuite):
                rules |= {(owner.__name__, rule) for rule, owner in rules_of(cls).items()}
    assert rules, "no rules were found: the search itself is broken"
    assert not rules - covered, f"rules without a broken plugin: {sorted(rules - covered)}"
    assert not covered - rules, f"broken plugins for rules that do not exist: {sorted(covered - rules)}"
