"""Prompts are MLflow's own, made of models, versions, tags and aliases: each of its methods works on this store."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.tracing.client import TracingClient

from mlflow_plugkit_testing.stores import all_pages, refused

IS_PROMPT = "mlflow.prompt.is_prompt"
CHAT = [{"role": "user", "content": "Säg {{word}}"}]


@pytest.fixture
def prompts(store: Any) -> Any:
    """A store with a prompt of three versions, an alias, and a registered model of another name."""
    store.create_prompt("ask", "how to ask", {"team": "red"})
    for template in ("One {{word}}", CHAT, "Three"):
        store.create_prompt_version("ask", template, "why", {"k": "v"})
    store.set_prompt_alias("ask", "best", 2)
    store.create_registered_model("model")
    store.create_model_version("model", "s3://b/m")
    return store


def test_templates_are_read_by_number_and_alias(prompts: Any) -> None:
    """Texts and chats come back as they were, with their tags."""
    assert [prompts.get_prompt_version("ask", n).template for n in (1, "2", 3)] == ["One {{word}}", CHAT, "Three"]
    best = prompts.get_prompt_version_by_alias("ask", "best")
    assert (int(best.version), best.tags["k"], best.aliases) == (2, "v", ["best"])
    prompts.delete_prompt_alias("ask", "best")
    with refused("INVALID_PARAMETER_VALUE", "the version of a deleted alias"):
        prompts.get_prompt_version("ask", "best")


def test_a_template_of_the_largest_size_is_kept(store: Any) -> None:
    """100,000 characters are kept and found again; one more is refused."""
    store.create_prompt("ask")
    template = "größer" * 16_666 + "end!"
    store.create_prompt_version("ask", template)
    assert store.get_prompt_version("ask", 1).template == template
    with refused("INVALID_PARAMETER_VALUE", "a template of 100,001 characters"):
        store.create_prompt_version("ask", template + "x")


def test_prompts_are_searched(prompts: Any) -> None:
    """By tags, names and experiments; models are never among them."""
    prompts.create_prompt("other", tags={"team": "blue"})
    for filter_string, wanted in (
        (None, ["ask", "other"]),
        ("tags.team = 'red'", ["ask"]),
        ("name LIKE 'o%'", ["other"]),
        ("tags.team != 'red'", ["other"]),
    ):
        found = [p.name for p in prompts.search_prompts(filter_string)]
        assert found == wanted, filter_string
    pages = all_pages(lambda token: prompts.search_prompts(None, 1, ["name DESC"], token))
    assert [[p.name for p in page] for page in pages] == [["other"], ["ask"]]
    assert [m.name for m in prompts.search_registered_models()] == ["model"]


def test_prompts_are_searched_by_experiment(prompts: Any) -> None:
    """MLflow keeps the ids of a prompt's experiments in one tag: a whole id is looked for, not a part of one."""
    if not hasattr(AbstractStore, "_parse_experiment_id_filter"):
        pytest.skip("this MLflow does not search prompts by experiment")
    prompts.set_prompt_tag("ask", "_mlflow_experiment_ids", ",1,22,")
    for filter_string, wanted in (
        ("experiment_id = '22'", ["ask"]),
        ("experiment_id = '2'", []),
        ("experiment_id = '1' AND name = 'ask'", ["ask"]),
    ):
        assert [p.name for p in prompts.search_prompts(filter_string)] == wanted, filter_string


def test_versions_of_a_prompt_are_listed(prompts: Any) -> None:
    """The newest first, page by page; a registered model has none."""
    if "Unity Catalog registries" in inspect.getsource(AbstractStore.search_prompt_versions):
        pytest.skip("this MLflow lists the versions of prompts in Unity Catalog alone")
    pages = all_pages(lambda token: prompts.search_prompt_versions("ask", 2, token))
    assert [[int(v.version) for v in page] for page in pages] == [[3, 2], [1]]
    prompts.delete_prompt_version("ask", "2")
    assert [int(v.version) for v in prompts.search_prompt_versions("ask")] == [3, 1]
    with refused("INVALID_PARAMETER_VALUE", "the prompt versions of a registered model"):
        prompts.search_prompt_versions("model")


def test_tags_of_prompts_and_versions_are_set_and_deleted(prompts: Any) -> None:
    """The tag that makes a prompt of a model is never shown."""
    prompts.set_prompt_tag("ask", "a", "1")
    prompts.delete_prompt_tag("ask", "team")
    assert prompts.get_prompt("ask").tags == {"a": "1"}
    prompts.set_prompt_version_tag("ask", 1, "k", "new")
    prompts.set_prompt_version_tag("ask", 1, "l", "x")
    prompts.delete_prompt_version_tag("ask", "1", "l")
    assert prompts.get_prompt_version("ask", 1).tags == {"k": "new"}
    prompts.delete_prompt("ask")
    assert prompts.get_prompt("ask") is None


def test_a_model_and_a_prompt_have_no_name_in_common(prompts: Any) -> None:
    """The message says which of them has it."""
    for call, words in (
        (lambda: prompts.create_registered_model("ask"), "taken by a prompt"),
        (lambda: prompts.create_prompt("model"), "taken by a registered model"),
        (lambda: prompts.create_prompt("ask"), "already exists"),
    ):
        with pytest.raises(MlflowException, match=words) as error:
            call()
        assert error.value.error_code == "RESOURCE_ALREADY_EXISTS"


def test_one_version_with_a_prompts_tag_hides_its_siblings_as_in_mlflows_own_store(store: Any, own: Any) -> None:
    """MLflow leaves out all versions of a name of which one has the tag: when it comes, changes and goes."""

    def visible(one: Any) -> list[tuple[str, int]]:
        return [(v.name, int(v.version)) for v in one.search_model_versions(order_by=["name", "version_number ASC"])]

    answers: dict[Any, list[Any]] = {}
    for one in (own, store):
        for name in ("m", "n"):
            one.create_registered_model(name)
            one.create_model_version(name, "s3://b/m")
        seen = [visible(one)]
        one.set_model_version_tag("m", 1, ModelVersionTag(IS_PROMPT, "true"))
        seen.append(visible(one))
        one.create_model_version("m", "s3://b/m")
        seen.append(visible(one))
        one.set_model_version_tag("m", 1, ModelVersionTag(IS_PROMPT, "false"))
        seen.append(visible(one))
        one.create_model_version("n", "s3://b/m", tags=[ModelVersionTag(IS_PROMPT, "true")])
        seen.append(visible(one))
        one.delete_model_version("n", 2)
        seen.append(visible(one))
        one.set_registered_model_tag("m", RegisteredModelTag(IS_PROMPT, "true"))
        seen.append(visible(one))
        one.set_model_version_tag("m", 2, ModelVersionTag(IS_PROMPT, "true"))
        one.delete_model_version_tag("m", 2, IS_PROMPT)
        seen.append(visible(one))
        answers[one] = seen
    assert answers[store] == answers[own]
    assert answers[own][0] == [("m", 1), ("n", 1)]


@pytest.fixture
def served(store: Any, tmp_path: Path) -> Iterator[Any]:
    """MLflow's client with a tracking store on SQLite and this registry."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/tracking.db")
    mlflow.set_registry_uri(store.uri)
    yield store
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def test_prompts_are_linked_to_runs_models_and_traces(served: Any) -> None:
    """The links are tags in the tracking store, which names prompt and version."""
    mlflow.genai.register_prompt("linked", "Say {{word}}")
    version = served.get_prompt_version("linked", 1)
    with mlflow.start_run() as run:
        model_id = mlflow.initialize_logged_model("model").model_id
        with mlflow.start_span("span") as span:
            span.set_inputs({"x": 1})
    mlflow.flush_trace_async_logging()
    served.link_prompt_version_to_run("linked", "1", run.info.run_id)
    served.link_prompt_version_to_model("linked", "1", model_id)
    served.link_prompts_to_trace([version], span.trace_id)
    client = mlflow.MlflowClient()
    for tags in (
        client.get_run(run.info.run_id).data.tags,
        client.get_logged_model(model_id).tags,
        TracingClient().get_trace_info(span.trace_id).tags,
    ):
        assert '"linked"' in tags["mlflow.linkedPrompts"]


def test_mlflows_own_functions_for_prompts_work(served: Any) -> None:
    """`mlflow.genai` registers, loads, aliases and searches prompts in this registry."""
    mlflow.genai.register_prompt("greet", "Hello {{name}}", tags={"lang": "en"})
    mlflow.genai.register_prompt("greet", "Hi {{name}}")
    mlflow.genai.set_prompt_alias("greet", "live", 1)
    assert mlflow.genai.load_prompt("prompts:/greet@live").format(name="Ä") == "Hello Ä"
    assert mlflow.genai.load_prompt("prompts:/greet/2").template == "Hi {{name}}"
    assert [p.name for p in mlflow.genai.search_prompts()] == ["greet"]
