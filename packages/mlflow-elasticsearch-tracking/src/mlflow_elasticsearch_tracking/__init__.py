"""MLflow's tracking store on Elasticsearch."""
