"""Every MLflow plugin type in its smallest honest form, under `file-plugin:` and the name `reference`."""
