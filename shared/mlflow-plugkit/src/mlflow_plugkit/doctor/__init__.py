"""What is wrong with the MLflow plugins of this environment, and how to mend it.

`doctor.examine.examine()` reads the metadata of every installed distribution, loads each plugin's entry
points in a subprocess that cannot open a connection, and returns a `doctor.findings.Report`. The process that
calls it imports no MLflow and no plugin, so it works where `import mlflow` itself fails.
"""
