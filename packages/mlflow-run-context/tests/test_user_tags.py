"""Tags of the user's own, options, and templates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_run_context.jobs import SOURCES
from mlflow_run_context.plugin import RunContext
from mlflow_run_context.settings import VARIABLES, current_settings
from mlflow_run_context.template import Template, TemplateError, compile_template

Tags = Callable[[], dict[str, str]]


def test_pairs_with_references(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKET", "ML-7")
    monkeypatch.setenv(
        "MLFLOW_RUN_TAGS",
        "team=vision, ticket=${TICKET},where={host.name}/{python.implementation}, missing={slurm.job_id},"
        "default={slurm.job_id:-local}, literal={{x}} $$1 $2, empty=, who={user:-nobody}",
    )
    found = tags()
    assert (found["team"], found["ticket"], found["default"], found["literal"]) == (
        "vision",
        "ML-7",
        "local",
        "{x} $1 $2",
    )
    assert found["where"] == f"{found['ctx.host.name']}/cpython"
    assert not {"missing", "empty"} & found.keys()
    monkeypatch.setenv("TICKET", "ML-8")
    assert tags()["ticket"] == "ML-8"


def test_json_and_toml(tags: Tags, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_RUN_TAGS", '{"list": "a, b=c", "number": 7, "flag": true}')
    found = tags()
    assert (found["list"], found["number"], found["flag"]) == ("a, b=c", "7", "true")
    file = tmp_path / "tags.toml"
    file.write_text('[tags]\nteam = "vision"\n"cost/centre" = "{ci.run:-none}"\nlist = "file"\n')
    monkeypatch.setenv("MLFLOW_RUN_TAGS_FILE", str(file))
    found = tags()
    assert (found["team"], found["cost/centre"], found["list"]) == ("vision", "none", "a, b=c")
    file.write_text('[tags]\nteam = "speech"\n')
    assert tags()["team"] == "speech"
    monkeypatch.delenv("MLFLOW_RUN_TAGS_FILE")
    monkeypatch.setenv("MLFLOW_RUN_TAGS", str(file))
    assert tags()["team"] == "speech"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MLFLOW_RUN_TAGS", "{", "no JSON object"),
        ("MLFLOW_RUN_TAGS", "team", "no list of name=value: 'team'"),
        ("MLFLOW_RUN_TAGS", "mlflow.runName=x", "no name of a tag that may be set"),
        ("MLFLOW_RUN_TAGS", "a={", "write '{{' for the character itself"),
        ("MLFLOW_RUN_TAGS", '{"a": [1]}', "is no text"),
        ("MLFLOW_RUN_TAGS", "/nowhere/tags.toml", "cannot be read"),
        ("MLFLOW_RUN_CONTEXT_SOURCES", "git,gti", "names no source: ['gti']"),
        ("MLFLOW_RUN_CONTEXT_PREFIX", "mlflow", "it is 'ctx'"),
        ("MLFLOW_RUN_CONTEXT_PREFIX", "a b", "it is 'ctx'"),
        ("MLFLOW_RUN_CONTEXT_DEADLINE", "soon", "which is no number"),
        ("MLFLOW_RUN_CONTEXT_REFRESH", "nan", "no number of seconds from 0"),
        ("MLFLOW_RUN_CONTEXT_DEADLINE", "-1", "no number of seconds from 0 to 600"),
        ("MLFLOW_RUN_CONTEXT_GIT_DIFF", "perhaps", "The default is used"),
    ],
)
def test_a_mistake_is_one_warning_and_the_rest_works(
    name: str, value: str, says: str, tags: Tags, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("MLFLOW_RUN_TAGS_FILE", "")
    monkeypatch.setenv(name, value)
    current_settings()
    for _ in range(3):
        found = tags()
        assert found.get("ctx.ci.system") == "gitlab" or "SOURCES" in name
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1, warnings
    assert says in warnings[0]


def test_a_bad_file_of_tags_is_one_warning(
    tags: Tags, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, text in enumerate(("a = ", 'team = "vision"\n', "tags = 7\n")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        monkeypatch.setenv("MLFLOW_RUN_TAGS_FILE", str(file))
        tags()
        tags()
    assert len([r for r in caplog.records if "The file of tags" in r.getMessage()]) == 3


def test_a_secret_in_a_variable_is_hidden(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "zebra-9")
    monkeypatch.setenv("LINK", "https://ann:zebra-9@host/x")
    monkeypatch.setenv("MLFLOW_RUN_TAGS", "a=${DEPLOY_TOKEN},b=x ${DEPLOY_TOKEN:-none},c=${LINK}")
    found = tags()
    assert (found["a"], found["b"], found["c"]) == ("***", "x ***", "https://host/x")


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        ("", set(SOURCES)),
        ("all", set(SOURCES)),
        ("none", set()),
        ("git, CI", {"git", "ci"}),
        ("all,-host,-gpu", set(SOURCES) - {"host", "gpu"}),
        ("-host", set(SOURCES) - {"host"}),
    ],
)
def test_sources_are_chosen(value: str, chosen: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", value)
    assert current_settings().chosen == chosen


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_can_be_switched_off(source: str, tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("GITLAB_CI", "1"),
        ("SLURM_JOB_ID", "1"),
        ("CONTAINER_IMAGE", "a"),
        ("CUDA_VISIBLE_DEVICES", "0"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", f"all,-{source}")
    with_it = {"scheduler": ("ctx.slurm", "ctx.scheduler")}.get(source, (f"ctx.{source}.",))
    assert not [key for key in tags() if key.startswith(with_it)]
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", source)
    assert all(key.startswith((*with_it, "mlflow.source.git.")) for key in tags())


def test_nothing_switched_on_is_not_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", "none")
    assert RunContext().in_context() is False
    monkeypatch.setenv("MLFLOW_RUN_TAGS", "a=1")
    assert RunContext().in_context() is True
    assert RunContext().tags() == {"a": "1"}


def test_another_prefix(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_PREFIX", "origin")
    assert {key.partition(".")[0] for key in tags()} <= {"origin", "mlflow"}


def test_no_more_than_a_hundred_tags(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", "none")
    monkeypatch.setenv("MLFLOW_RUN_TAGS", ",".join(f"t{n}=1" for n in range(150)))
    assert len(tags()) == 100


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    try:
        template = compile_template(text)
    except TemplateError:
        return
    assert isinstance(template, Template)
    assert template.value({}) == template.value({}).strip()


def test_each_option_has_a_variable() -> None:
    assert len(VARIABLES) == len(set(VARIABLES)) == 9
