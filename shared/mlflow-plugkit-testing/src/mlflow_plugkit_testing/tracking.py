"""The conformance class of tracking stores (entry points `mlflow.tracking_store`)."""

from __future__ import annotations

from mlflow_plugkit_testing.differential_rules import DifferentialTrackingRules
from mlflow_plugkit_testing.tracking_contract import TrackingContractRules
from mlflow_plugkit_testing.tracking_experiments import ExperimentRules, ExperimentSearchRules
from mlflow_plugkit_testing.tracking_hidden import HiddenMethodRules
from mlflow_plugkit_testing.tracking_metrics import MetricRules
from mlflow_plugkit_testing.tracking_models import LoggedModelRules
from mlflow_plugkit_testing.tracking_runs import RunRules
from mlflow_plugkit_testing.tracking_search import RunSearchRules
from mlflow_plugkit_testing.tracking_traces import AssessmentRules


class TrackingStoreConformance(
    TrackingContractRules,
    ExperimentRules,
    ExperimentSearchRules,
    RunRules,
    MetricRules,
    RunSearchRules,
    HiddenMethodRules,
    LoggedModelRules,
    AssessmentRules,
    DifferentialTrackingRules,
):
    """What MLflow and its users rely on in a tracking store.

    A plugin's test class says how to get a fresh, empty store; the store itself is made through the
    plugin's entry point:

        class TestStore(TrackingStoreConformance):
            @pytest.fixture
            def store_uri_factory(self, tmp_path):
                return lambda: f"my-plugin:{tempfile.mkdtemp(dir=tmp_path)}"

    Capability properties (`supports_...`) say what the plugin does not offer.
    """
