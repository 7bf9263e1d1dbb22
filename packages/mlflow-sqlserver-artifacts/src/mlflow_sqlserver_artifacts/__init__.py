"""MLflow artifacts in Microsoft SQL Server, and in PostgreSQL, MariaDB and SQLite under an own scheme.

The entry points name `mlflow_sqlserver_artifacts.plugin`; `python -m mlflow_sqlserver_artifacts` prints or
creates the tables.
"""
