"""Plugkit: what every plugin of the family shares.

Importing this package, or any module of it, imports no MLflow and no SDK; MLflow is imported inside
the functions that need it. So the command line can examine an environment in which `import mlflow`
itself is broken.

Modules: `uri` (parsing, path rules, redaction), `settings` (URI and environment to a frozen
dataclass), `errors` (the error table and its choke point), `requirements` (optional packages),
`compat` (everything that depends on the MLflow version), `logs` (loggers that never print a secret),
`collector` (garbage collection out of the way of thousands of objects).
"""
