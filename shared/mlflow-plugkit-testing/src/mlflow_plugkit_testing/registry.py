"""The conformance class of model registry stores (entry points `mlflow.model_registry_store`)."""

from __future__ import annotations

from mlflow_plugkit_testing.differential_rules import DifferentialRegistryRules
from mlflow_plugkit_testing.registry_contract import RegistryContractRules
from mlflow_plugkit_testing.registry_extras import PromptRules, WebhookRules
from mlflow_plugkit_testing.registry_models import RegisteredModelRules
from mlflow_plugkit_testing.registry_versions import ModelVersionRules


class ModelRegistryStoreConformance(
    RegistryContractRules,
    RegisteredModelRules,
    ModelVersionRules,
    PromptRules,
    WebhookRules,
    DifferentialRegistryRules,
):
    """What MLflow and its users rely on in a model registry store.

    A plugin's test class says how to get a fresh, empty registry; the store itself is made through the
    plugin's entry point:

        class TestRegistry(ModelRegistryStoreConformance):
            @pytest.fixture
            def store_uri_factory(self, tmp_path):
                return lambda: f"my-plugin:{tempfile.mkdtemp(dir=tmp_path)}"

    Capability properties (`supports_...`) say what the plugin does not offer.
    """
