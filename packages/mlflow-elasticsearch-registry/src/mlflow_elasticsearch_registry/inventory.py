"""What the method ledger needs to know of this store (see `mlflow_plugkit_elasticsearch.ledger`)."""

from __future__ import annotations

from mlflow.store.model_registry.abstract_store import AbstractStore

from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

STORE, BASE = ElasticsearchRegistryStore, AbstractStore
_PROMPTS = "built on registered models, versions, tags and aliases"
INHERITED = {
    "_await_model_version_creation_impl": "versions are ready at once",
    "_parse_experiment_id_filter": "a helper of MLflow's own",
    "copy_model_version": "built on get_model_version and create_model_version",
    "create_prompt": _PROMPTS,
    "create_prompt_version": _PROMPTS,
    "delete_prompt": _PROMPTS,
    "delete_prompt_alias": _PROMPTS,
    "delete_prompt_tag": _PROMPTS,
    "delete_prompt_version": _PROMPTS,
    "delete_prompt_version_tag": _PROMPTS,
    "get_prompt": _PROMPTS,
    "get_prompt_version": _PROMPTS,
    "get_prompt_version_by_alias": _PROMPTS,
    "link_prompt_version_to_model": "sets a tag of the logged model",
    "link_prompt_version_to_run": "sets a tag of the run",
    "link_prompts_to_trace": "calls the tracking store",
    "search_prompt_versions": _PROMPTS,
    "search_prompts": _PROMPTS,
    "set_prompt_alias": _PROMPTS,
    "set_prompt_tag": _PROMPTS,
    "set_prompt_version_tag": _PROMPTS,
}
HIDDEN: tuple[str, ...] = ()
