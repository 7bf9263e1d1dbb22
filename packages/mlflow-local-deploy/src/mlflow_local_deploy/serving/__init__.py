"""What runs inside a worker, in the model's environment: the standard library, MLflow, and what MLflow serves with."""
