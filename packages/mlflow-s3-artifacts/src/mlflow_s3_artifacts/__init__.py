"""MLflow artifacts on any S3-compatible service: `s3+https://endpoint/bucket/prefix`."""

from mlflow_s3_artifacts.plugin import take_over_s3

__all__ = ["take_over_s3"]
