"""What MLflow does with each entry-point group: facts that hold for every MLflow since 2.22."""

from __future__ import annotations

# Groups that `import mlflow` loads. The probe records them; this list serves where MLflow cannot be imported.
FALLBACK_EAGER = frozenset(
    f"mlflow.{name}"
    for name in (
        "tracking_store",
        "artifact_repository",
        "dataset_source",
        "dataset_constructor",
        "run_context_provider",
        "default_experiment_provider",
        "scorer_store",
        "labeling_store",
    )
)

# The entry point's name is looked up as the scheme of a URI (mlflow.utils.uri.get_uri_scheme).
BY_SCHEME = frozenset(
    f"mlflow.{name}"
    for name in (
        "tracking_store",
        "model_registry_store",
        "artifact_repository",
        "scorer_store",
        "labeling_store",
        "workspace_provider",
    )
)

# The entry point's name is looked up as it stands; of two, the first discovered is used.
FIRST_WINS = frozenset({"mlflow.app", "mlflow.app.client", "mlflow.project_backend"})

# As above, but the last discovered replaces the others in a dictionary.
LAST_WINS = frozenset({"mlflow.deployments", "mlflow.model_evaluator", "mlflow.dataset_constructor"})

# As above, but a second one raises an exception (or is refused).
CLASH_RAISES = frozenset({"mlflow.gateway.providers", "mlflow.job_executors"})

NAMED = BY_SCHEME | FIRST_WINS | LAST_WINS | CLASH_RAISES

DATABASE_ENGINES = ("postgresql", "mysql", "sqlite", "mssql")

_SQL = list(DATABASE_ENGINES)
FALLBACK_BUILTINS: dict[str, list[str]] = {
    "mlflow.tracking_store": ["", "file", "http", "https", "databricks", "databricks-uc", "uc", *_SQL],
    "mlflow.model_registry_store": ["", "file", "http", "https", "databricks", "databricks-uc", "uc", *_SQL],
    "mlflow.artifact_repository": [
        "",
        *("abfss", "b2", "dbfs", "file", "ftp", "gs", "hdfs", "http", "https", "mlflow-artifacts", "models"),
        *("r2", "runs", "s3", "sftp", "viewfs", "wasbs"),
    ],
    "mlflow.scorer_store": ["databricks", "http", "https", *_SQL],
    "mlflow.labeling_store": ["databricks"],
    "mlflow.request_auth_provider": ["kubernetes", "kubernetes-namespaced"],
    "mlflow.project_backend": ["databricks", "kubernetes"],
    "mlflow.model_evaluator": ["default", "classifier", "regressor", "shap"],
    "mlflow.deployments": ["databricks", "http", "https", "openai"],
    "mlflow.app": ["basic-auth"],
    "mlflow.app.client": ["basic-auth"],
    "mlflow.job_executors": ["local"],
}
