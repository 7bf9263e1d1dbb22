"""Model registry stores that are wrong, each in the way that its name says; all are MLflow's own store, sabotaged."""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from mlflow_plugkit_testing.registry import ModelRegistryStoreConformance
from mlflow_plugkit_testing.stores_lazy import LazyRegistryStore

sys.path.insert(0, str(Path(__file__).parent))

from sabotage import OnSqlite, deaf_to, permissive, rewriting, sabotaged, skipping, wrong_codes

ACCEPTED = "it was accepted"


class Broken(OnSqlite, ModelRegistryStoreConformance):
    store_class = LazyRegistryStore


class TestWrongErrorCodes(Broken):
    store_class = sabotaged(LazyRegistryStore, wrong_codes)
    breaks = {
        "test_a_missing_model_is_named_as_such": "on an unknown registered model must raise",
        "test_a_missing_version_is_named_as_such": "on the missing model version 1 must raise",
        "test_a_taken_model_name_is_refused": "with a taken name must raise",
    }


class TestEverythingIsAccepted(Broken):
    store_class = sabotaged(LazyRegistryStore, permissive)
    breaks = {
        "test_bad_model_names_are_refused": ACCEPTED,
        "test_bad_model_tags_are_refused": ACCEPTED,
        "test_bad_aliases_are_refused": ACCEPTED,
        "test_bad_model_searches_are_refused": ACCEPTED,
        "test_bad_version_searches_are_refused": ACCEPTED,
        "test_bad_version_numbers_are_refused": ACCEPTED,
        "test_bad_webhooks_are_refused": ACCEPTED,
    }


class TestDeafToChanges(Broken):
    store_class = sabotaged(
        LazyRegistryStore,
        deaf_to(
            "rename_registered_model", "delete_registered_model", "delete_registered_model_tag", "update_model_version",
            "delete_model_version_tag", "delete_webhook",
        ),
    )  # fmt: skip
    breaks = {
        "test_a_model_can_be_described_and_renamed": ACCEPTED,
        "test_a_deleted_model_is_gone_with_its_versions": ACCEPTED,
        "test_model_tags_are_set_overwritten_and_deleted": "delete_registered_model_tag left the tag in place",
        "test_a_version_can_be_described": "the description of a version was read back as",
        "test_version_tags_are_set_overwritten_and_deleted": "delete_model_version_tag left the tag in place",
        "test_webhooks_are_updated_listed_and_deleted": ACCEPTED,
    }


class TestPagesSkipARow(Broken):
    store_class = sabotaged(LazyRegistryStore, skipping)
    breaks = {
        "test_model_pages_cover_all_once": "must cover all exactly once",
        "test_version_pages_cover_all_once": "must cover all exactly once",
    }


class TestLikeForgetsTheCase(Broken):
    store_class = sabotaged(
        LazyRegistryStore,
        rewriting(of=("search_registered_models", "search_model_versions"), a=(" LIKE ", " ILIKE ")),
    )
    breaks = {
        "test_models_are_searched": "filters that chose the wrong registered models",
        "test_versions_are_searched": "filters that chose the wrong model versions",
    }


class TestWorksInItsConstructor(Broken):
    class store_class(SqlAlchemyStore):
        def __init__(self, store_uri):
            super().__init__(store_uri)

        def get_latest_versions(self, name, stages=None):
            pass

        def __getstate__(self):
            raise TypeError("a connection cannot be pickled")

    breaks = {
        "test_the_constructor_only_parses": "the constructor must only parse its arguments",
        "test_every_member_of_the_abstract_store_is_answered": "get_latest_versions (None",
        "test_a_store_can_be_pickled": "a registry store must be picklable",
    }


class TestOtherConstructorArguments(Broken):
    def store_builder(self, uri):
        return lambda db_uri: LazyRegistryStore(db_uri)

    def make_store(self, uri, tracking_uri):
        return LazyRegistryStore(uri)

    breaks = {"test_the_entry_point_takes_store_uri_by_keyword": "does not take"}


class TestShowsItsSecret(Broken):
    secret_uri = ("sqlite:////srv/x.db?password=hunter2secret", "hunter2secret")

    class store_class(LazyRegistryStore):
        def __repr__(self):
            return f"Store({self._settings})"

    breaks = {"test_no_secret_is_shown": "the registry store shows its secret"}


class TestNarrowSignature(Broken):
    class store_class(LazyRegistryStore):
        def update_registered_model(self, name):
            return super().update_registered_model(name, None)

    breaks = {"test_signatures_are_those_of_the_abstract_store": "update_registered_model: has no parameter"}


class TestOnlyTheFirstOpens(Broken):
    class store_class(LazyRegistryStore):
        users: dict[str, object] = {}

        def search_registered_models(self, *args, **kwargs):
            if self.users.setdefault(self._settings[0], self) is not self:
                raise MlflowException("another store is on this URI")
            return super().search_registered_models(*args, **kwargs)

        def search_model_versions(self, *args, **kwargs):
            found = super().search_model_versions(*args, **kwargs)
            found[:] = [v for v in found if v.version in vars(self).get("own", [])]
            return found

        def create_model_version(self, *args, **kwargs):
            made = super().create_model_version(*args, **kwargs)
            vars(self).setdefault("own", []).append(made.version)
            return made

    breaks = {
        "test_eight_stores_may_be_used_first_at_the_same_time": "used first at the same time must all work",
        "test_two_stores_on_one_uri_see_each_others_writes": "must be found at once",
    }


class TestForgetful(Broken):
    class store_class(LazyRegistryStore):
        def create_registered_model(self, name, tags=None, description=None, deployment_job_id=None):
            try:
                return super().create_registered_model(name, None, description)
            except MlflowException:
                return self.get_registered_model(name)

        def create_model_version(self, name, source, *args, **kwargs):
            return super().create_model_version(name, "s3://bucket/other", *args, **kwargs)

        def set_registered_model_alias(self, name, alias, version):
            if alias not in self.get_registered_model(name).aliases:
                super().set_registered_model_alias(name, alias, version)

        def delete_model_version(self, name, version):
            kept = [a for a, v in self.get_registered_model(name).aliases.items() if int(v) == int(version)]
            super().delete_model_version(name, version)
            vars(self)["dangling"] = dict.fromkeys(kept, version)

        def get_registered_model(self, name):
            model = super().get_registered_model(name)
            model._aliases = {**model.aliases, **vars(self).get("dangling", {})}
            return model

        def get_latest_versions(self, name, stages=None):
            return super().get_latest_versions(name, stages)[:1]

        def transition_model_version_stage(self, name, version, stage, archive_existing_versions):
            return super().transition_model_version_stage(name, version, stage, False)

    breaks = {
        "test_a_created_model_is_read_back": "a registered model was read back as",
        "test_of_many_threads_one_gets_the_model_name": "exactly one must win",
        "test_a_created_version_is_read_back": "a model version was read back as",
        "test_an_alias_points_to_one_version": "must lead to its new version",
        "test_a_deleted_version_loses_its_aliases": "aliases still lead to a deleted version",
        "test_the_latest_versions_of_stages_are_found": "the latest versions of all stages",
        "test_versions_move_between_stages": "stages after archiving the existing version",
        "test_a_version_can_be_copied": "a copied version was read back as",
    }


class TestNumbersByCounting(Broken):
    class store_class(LazyRegistryStore):
        CREATE_MODEL_VERSION_RETRIES = 1

        def create_model_version(self, name, *args, **kwargs):
            made = super().create_model_version(name, *args, **kwargs)
            made._version = len(self.search_model_versions(f"name = '{name}'"))
            return made

    breaks = {
        "test_versions_are_numbered_from_one": "the number of a deleted version must not be used again",
    }


class TestNumbersAreContested(Broken):
    class store_class(LazyRegistryStore):
        def create_model_version(self, name, *args, **kwargs):
            made = super().create_model_version(name, *args, **kwargs)
            made._version = 1
            return made

    breaks = {"test_threads_get_different_version_numbers": "created by four threads at once"}


class TestPromptsAreModels(Broken):
    class store_class(LazyRegistryStore):
        def search_prompts(self, *args, **kwargs):
            found = self.search_registered_models()
            found += super().search_prompts(*args, **kwargs)
            return found

        def get_prompt(self, name):
            try:
                return self.get_registered_model(name)
            except MlflowException:
                return None

        def create_prompt_version(self, name, template, *args, **kwargs):
            return super().create_prompt_version(name, template.strip(), *args, **kwargs)

    breaks = {
        "test_prompts_and_models_are_kept_apart": "a search must keep prompts and models apart",
        "test_a_missing_prompt_is_none": "get_prompt of a registered model that is no prompt",
        "test_a_prompt_and_its_versions_are_read_back": "a prompt version was read back as",
    }


class TestForgetfulWebhooks(Broken):
    class store_class(LazyRegistryStore):
        def create_webhook(self, name, url, events, description=None, secret=None, status=None):
            return super().create_webhook(name, url, events, None, secret, status)

        def list_webhooks_by_event(self, event, max_results=None, page_token=None):
            return self.list_webhooks()

    breaks = {
        "test_a_webhook_is_read_back": "a webhook was read back as",
        "test_webhooks_are_found_by_their_event": "must find the webhooks of that event only",
    }
