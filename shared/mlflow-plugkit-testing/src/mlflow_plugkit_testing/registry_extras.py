"""Rules about prompts (MLflow >= 3.1) and webhooks (MLflow >= 3.3)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mlflow_plugkit_testing.registry_base import ModelRegistryStoreSuite, mlflow_has
from mlflow_plugkit_testing.stores import all_pages, refused
from mlflow_plugkit_testing.tracking_base import need


class PromptRules(ModelRegistryStoreSuite):
    """Prompts, which MLflow's base class keeps as registered models with tags."""

    @pytest.fixture
    def prompts(self, store: Any) -> Any:
        """The store, where this MLflow and the plugin have prompts."""
        mlflow_has("create_prompt", "prompts in the registry store")
        need(self.supports_prompts, "prompts")
        return store

    def test_a_prompt_and_its_versions_are_read_back(self, prompts: Any) -> None:
        """Templates come back as they were, by number and by alias."""
        prompts.create_prompt("ask", "how to ask", {"team": "red"})
        for template in ("Say {{ word }}", "Säg {{ word }}\n"):
            made = prompts.create_prompt_version("ask", template, "why", {"k": "v"})
        prompts.set_prompt_alias("ask", "best", 1)
        prompt, second = prompts.get_prompt("ask"), prompts.get_prompt_version("ask", made.version)
        assert (prompt.name, prompt.description, prompt.tags.get("team")) == ("ask", "how to ask", "red"), (
            f"a prompt was read back as {prompt.name, prompt.description, prompt.tags}"
        )
        assert (int(second.version), second.template) == (2, "Säg {{ word }}\n"), (
            f"a prompt version was read back as {second}"
        )
        first = prompts.get_prompt_version_by_alias("ask", "best")
        assert first.template == "Say {{ word }}", f"the alias of a prompt leads to {first.template!r}"

    def test_prompts_and_models_are_kept_apart(self, prompts: Any, model: str) -> None:
        """Prompts are no registered models in a search, and models no prompts."""
        prompts.create_prompt("ask")
        models = [m.name for m in prompts.search_registered_models()]
        found = [p.name for p in prompts.search_prompts()]
        assert (models, found) == ([model], ["ask"]), f"a search must keep prompts and models apart: {models} {found}"

    def test_a_missing_prompt_is_none(self, prompts: Any, model: str) -> None:
        """`get_prompt` of an unknown prompt, or of a registered model that is none, returns None."""
        assert prompts.get_prompt("none") is None, "get_prompt of an unknown prompt must return None"
        assert prompts.get_prompt(model) is None, "get_prompt of a registered model that is no prompt must return None"


class WebhookRules(ModelRegistryStoreSuite):
    """Webhooks: MLflow's server asks for them at each write (mlflow.webhooks.delivery)."""

    @pytest.fixture
    def webhooks(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The store, where this MLflow and the plugin have webhooks."""
        mlflow_has("create_webhook", "webhooks")
        need(self.supports_webhooks, "webhooks")
        monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", base64.urlsafe_b64encode(bytes(range(32))).decode())
        monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
        return store

    @staticmethod
    def event(entity: str = "registered_model") -> Any:
        """The event that a registered model, or another entity, was created."""
        from mlflow.entities.webhook import WebhookEvent

        return WebhookEvent(entity, "created")

    def test_a_webhook_is_read_back(self, webhooks: Any) -> None:
        """Name, URL, events, description and status of a webhook are read back."""
        made = webhooks.create_webhook("hook", "https://127.0.0.1/x", [self.event()], "what", "s3cret-value")
        read = webhooks.get_webhook(made.webhook_id)
        shown = (read.name, read.url, [str(e) for e in read.events], read.description, str(read.status))
        wanted = ("hook", "https://127.0.0.1/x", ["registered_model.created"], "what", "ACTIVE")
        assert shown == wanted, f"a webhook was read back as {shown}"
        assert "s3cret-value" not in repr(read), "a webhook shows its secret"

    def test_webhooks_are_updated_listed_and_deleted(self, webhooks: Any) -> None:
        """An update changes what it names; pages list each webhook once; a deleted one is gone."""
        ids = [webhooks.create_webhook(f"h{i}", "https://127.0.0.1/x", [self.event()]).webhook_id for i in range(3)]
        webhooks.update_webhook(ids[0], name="renamed")
        pages = all_pages(lambda token: webhooks.list_webhooks(2, token))
        names = sorted(w.name for page in pages for w in page)
        assert names == ["h1", "h2", "renamed"], f"list_webhooks must list each webhook once: {names}"
        webhooks.delete_webhook(ids[0])
        with refused("RESOURCE_DOES_NOT_EXIST", "get_webhook of a deleted webhook"):
            webhooks.get_webhook(ids[0])

    def test_webhooks_are_found_by_their_event(self, webhooks: Any) -> None:
        """`list_webhooks_by_event`, called at each write, finds the webhooks of that event only."""
        mlflow_has("list_webhooks_by_event", "list_webhooks_by_event")
        wanted = webhooks.create_webhook("h1", "https://127.0.0.1/x", [self.event()]).webhook_id
        webhooks.create_webhook("h2", "https://127.0.0.1/x", [self.event("model_version")])
        found = [w.webhook_id for w in webhooks.list_webhooks_by_event(self.event(), 10)]
        assert found == [wanted], "list_webhooks_by_event must find the webhooks of that event only"

    def test_bad_webhooks_are_refused(self, webhooks: Any) -> None:
        """An empty name, a URL without http(s) or no event raises `INVALID_PARAMETER_VALUE`."""
        cases: list[tuple[Any, ...]] = [
            ("", "https://127.0.0.1/x", [self.event()]),
            ("h", "ftp://127.0.0.1/x", [self.event()]),
            ("h", "https://127.0.0.1/x", []),
        ]
        for name, url, events in cases:
            with refused("INVALID_PARAMETER_VALUE", f"the webhook {name!r} to {url!r} with {len(events)} events"):
                webhooks.create_webhook(name, url, events)
