"""The import of the registry from MLflow's own database: no answer differs, and nothing is given twice."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.webhook import WebhookEvent
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from mlflow_elasticsearch_registry.importer import RegistryImporter
from mlflow_elasticsearch_registry.indices import REGISTERED_MODELS, WEBHOOKS
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
from mlflow_plugkit_elasticsearch.import_parts import plain
from mlflow_plugkit_elasticsearch.import_progress import Progress
from mlflow_plugkit_elasticsearch.import_run import copy, differences
from mlflow_plugkit_elasticsearch.import_source import ImportSource

pytestmark = pytest.mark.once

ODD = "größe 'x' \"y\" 大 \\ * a.b/c"
SECRET = "webhook-geheim"  # made up


@pytest.fixture
def origin(own: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImportSource]:
    """A SQLite file with models, versions in stages, aliases, a deleted version, a prompt and webhooks."""
    from mlflow.store.model_registry.dbmodels.models import SqlWebhook

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    cipher = SqlWebhook.__table__.c.secret.type.cipher  # MLflow took its key when it was imported
    key = urlsafe_b64encode(cipher._signing_key + cipher._encryption_key).decode()
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", key)
    for name in ("model", "it's", "empty", ODD.replace("/", " ")):
        own.create_registered_model(name, [RegisteredModelTag("k", ODD)], ODD)
    for number in range(4):
        own.create_model_version("model", f"s3://b/{number}", "r" * 32, [ModelVersionTag("n", str(number))], None, "d")
    own.transition_model_version_stage("model", "1", "Production", False)
    own.set_registered_model_alias("model", "champion", "2")
    own.delete_model_version("model", "4")
    own.create_model_version("it's", "models:/model/2")
    own.create_registered_model("greeting", [RegisteredModelTag(IS_PROMPT_TAG_KEY, "true")])
    for text in ("Hello", "Good day"):
        tags = [ModelVersionTag(IS_PROMPT_TAG_KEY, "true"), ModelVersionTag("mlflow.prompt.text", text)]
        own.create_model_version("greeting", "dummy", tags=tags)
    own.set_registered_model_alias("greeting", "live", "1")
    events = [WebhookEvent("registered_model", "created"), WebhookEvent("model_version", "created")]
    own.create_webhook("hook", "https://127.0.0.1/hook", events, "d", SECRET)
    own.delete_webhook(own.create_webhook("gone", "https://127.0.0.1/gone", events).webhook_id)
    source = ImportSource(own.db_uri)
    yield source
    source.close()


def _documents(store: Any) -> Documents:
    return Documents.of(ElasticsearchSettings.from_uri(store.uri))


def _copied(origin: ImportSource, store: Any, *, resume: bool = False) -> RegistryImporter:
    importer = RegistryImporter(origin, store.uri, _documents(store))
    copy(origin, _documents(store), [importer], Progress("copying"), resume=resume)
    return importer


def _asked(store: Any) -> Iterator[tuple[str, Any]]:
    prompts = f"tags.`{IS_PROMPT_TAG_KEY}` = 'true'"
    for wanted in (None, prompts, "name LIKE 'm%'"):
        models = store.search_registered_models(filter_string=wanted, order_by=["name ASC"])
        yield f"models {wanted}", [_model(model) for model in models]
        versions = store.search_model_versions(filter_string=wanted, order_by=["name ASC", "version_number DESC"])
        yield f"versions {wanted}", [_version(version) for version in versions]
    for name in ("model", "it's", "greeting"):
        yield f"latest of {name}", sorted(str(_version(v)) for v in store.get_latest_versions(name))
    yield (
        "by alias",
        [_version(store.get_model_version_by_alias(*one)) for one in (("model", "champion"), ("greeting", "live"))],
    )
    yield "files", store.get_model_version_download_uri("it's", "1")
    webhooks = store.list_webhooks()
    yield (
        "webhooks",
        [(w.webhook_id, w.name, w.url, sorted(map(str, w.events)), w.secret, w.creation_timestamp) for w in webhooks],
    )


def _model(model: Any) -> Any:
    told = plain(model)
    return told | {"latest_version": sorted(str(_version(v)) for v in model.latest_versions)}


def _version(version: Any) -> Any:
    return plain(version) | {"version": int(version.version), "aliases": sorted(version.aliases)}


def test_no_answer_differs_and_numbers_go_on(origin: ImportSource, store: Any) -> None:
    """Models, prompts, versions, stages, aliases, tags, webhooks with their secrets; a deleted number stays taken."""
    importer = _copied(origin, store)
    assert list(differences([importer], Progress("comparing"), 100)) == []
    expected, found = dict(_asked(origin.registry)), dict(_asked(store))
    assert len(expected) == 12
    for question, answer in expected.items():
        assert found[question] == answer, question
    with pytest.raises(MlflowException, match="not found"):
        store.get_model_version("model", "4")
    assert int(store.create_model_version("model", "s3://b/new").version) == 5
    assert int(store.create_model_version("greeting", "dummy").version) == 3
    with pytest.raises(MlflowException, match="already exists"):
        store.create_registered_model("it's")


def test_a_second_import_changes_nothing(origin: ImportSource, store: Any) -> None:
    """Not without --resume, which writes the same documents over themselves."""
    _copied(origin, store)
    before = {hit.id for hit in store.docs.scan(REGISTERED_MODELS, {"match_all": {}}, "model_id")}
    store.update_registered_model("model", "changed")
    _copied(origin, store)
    assert store.get_registered_model("model").description == "changed"
    importer = _copied(origin, store, resume=True)
    assert store.get_registered_model("model").description == ODD
    assert {hit.id for hit in store.docs.scan(REGISTERED_MODELS, {"match_all": {}}, "model_id")} == before
    assert list(differences([importer], Progress("comparing"), 100)) == []


def test_a_model_of_the_same_name_is_refused(origin: ImportSource, store: Any) -> None:
    """Before anything is written."""
    store.create_registered_model("it's", description="mine")
    with pytest.raises(MlflowException, match="nothing was written") as refused:
        _copied(origin, store)
    assert 'registered model "it\'s"' in refused.value.message
    assert [model.name for model in store.search_registered_models()] == ["it's"]
    assert not store.list_webhooks()


def test_secrets_of_webhooks_stay_encrypted(origin: ImportSource, store: Any, new_store: Callable[..., Any]) -> None:
    """They are copied as MLflow's database has them; no document shows one."""
    _copied(origin, store)
    documents = str([hit.source for hit in store.docs.scan(WEBHOOKS, {"match_all": {}}, "webhook_id")])
    assert "hook" in documents
    assert SECRET not in documents


def test_the_comparison_names_what_differs(origin: ImportSource, store: Any, new_store: Callable[..., Any]) -> None:
    """A changed description, a lost version, an alias that moved."""
    importer: RegistryImporter = _copied(origin, store)
    store.update_registered_model("empty", "changed")
    store.set_registered_model_alias("model", "champion", "1")
    store.delete_model_version("model", "3")
    found = "\n".join(differences([importer], Progress("comparing"), 100))
    for words in (
        "registered models: empty: description is",
        "registered models: model: aliases is",
        "versions of registered models: model 3",
        "versions of registered models: 4 in the source, 3 in the target",
    ):
        assert words in found, found
