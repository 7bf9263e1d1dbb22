"""One transfer engine for artifact repositories: a backend states a few primitives, MLflow gets all of it."""
