"""Headers for every request of MLflow's client: read from a file and the environment."""
