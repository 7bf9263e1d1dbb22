"""The conformance kit: pytest classes that the tests of an MLflow plugin inherit.

Each plugin type has one class. A plugin's test module subclasses it, overrides the fixtures that make
the plugin's objects, says in capability properties what the plugin does not offer, and inherits every
rule as a test. Import the classes from their modules, such as `mlflow_plugkit_testing.artifacts`.
"""
