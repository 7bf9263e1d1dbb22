"""The conformance class for artifact repositories (entry-point group `mlflow.artifact_repository`)."""

from __future__ import annotations

from mlflow_plugkit_testing.artifacts_listing import ArtifactDeletionRules, ArtifactListingRules
from mlflow_plugkit_testing.artifacts_mixins import ArtifactMixinRules
from mlflow_plugkit_testing.artifacts_safety import ArtifactSafetyRules
from mlflow_plugkit_testing.artifacts_transfer import ArtifactTransferRules
from mlflow_plugkit_testing.artifacts_workflow import ArtifactWorkflowRules


class ArtifactRepositoryConformance(
    ArtifactTransferRules,
    ArtifactListingRules,
    ArtifactDeletionRules,
    ArtifactSafetyRules,
    ArtifactMixinRules,
    ArtifactWorkflowRules,
):
    """Every rule for an artifact repository, used directly by a client.

    Override the fixture `artifact_uri`, and `secrets` where the repository uses any:

        class TestDemoArtifacts(ArtifactRepositoryConformance):
            @pytest.fixture
            def artifact_uri(self, tmp_path):
                return f"demo://{tmp_path}/root"

    `make_repository(uri)` asks MLflow's registry for the scheme, so the plugin must be installed. The
    hooks `interrupted_downloads` and `corrupted_downloads` let two further rules run.
    """
