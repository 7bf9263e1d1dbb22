"""`python -m mlflow_plugkit.cli`: the command line, where its script is not on the path."""

from mlflow_plugkit.cli import main

main()
