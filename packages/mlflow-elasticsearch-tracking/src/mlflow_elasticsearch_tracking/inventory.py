"""What the method ledger needs to know of this store (see `mlflow_plugkit_elasticsearch.ledger`)."""

from __future__ import annotations

from mlflow.store.tracking.abstract_store import AbstractStore

from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

STORE, BASE = ElasticsearchTrackingStore, AbstractStore

_QUEUE = "MLflow's queue, which calls log_batch"
INHERITED = {
    "log_batch_async": _QUEUE,
    "log_metric_async": _QUEUE,
    "log_param_async": _QUEUE,
    "set_tag_async": _QUEUE,
    "flush_async_logging": _QUEUE,
    "end_async_logging": _QUEUE,
    "shut_down_async_logging": _QUEUE,
    "search_runs": "calls _search_runs",
    "delete_traces": "checks its arguments and calls _delete_traces",
    "set_model_versions_tags": "calls get_logged_model and set_logged_model_tags",
    "resolve_trace_archival_config": "there is no archival to resolve",
    "supports_workspaces": "False: this store has no workspaces",
    "supports_trace_archival": "False: this store moves no traces",
    "_evenly_spaced_indices": "a helper of MLflow's own",
    "artifact_root_uri": "set by the constructor",
}
#: Called by mlflow.server.handlers, mlflow.tracking.client, mlflow gc and mlflow.gateway without being declared.
HIDDEN = (
    "delete_tag",
    "log_logged_model_params",
    "get_metric_history_bulk",
    "_search_datasets",
    "deprecated_start_trace_v2",
    "deprecated_end_trace_v2",
    "resolve_endpoint_in_scorer",
    "_hard_delete_run",
    "_get_deleted_runs",
    "_hard_delete_experiment",
    "_hard_delete_logged_model",
    "_get_deleted_logged_models",
)
