"""MLflow's model registry on Elasticsearch."""
