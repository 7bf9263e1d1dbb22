"""MLflow models served on this machine: `mlflow deployments create -t local -m models:/churn/3 --name churn`.

The package has two halves. The client (`deployment`, `cli`) runs in the user's process. The supervisor and the
workers (`supervisor`, `serving`) outlive it; they import the standard library, MLflow, and what MLflow serves with.
A worker runs in the model's environment, where this package need not be installed.
"""
