"""Request auth providers for MLflow's client: `MLFLOW_TRACKING_AUTH=oauth2` and its siblings.

Importing this package imports nothing else. Users need no name from it; `mlflow_request_auth.plugin`
holds the classes that the entry points name.
"""
