"""The tracking store: its parts put together."""

from __future__ import annotations

from typing import Any

from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.utils.uri import resolve_uri_if_local

from mlflow_elasticsearch_tracking.assessments import Assessments
from mlflow_elasticsearch_tracking.base import artifact_root
from mlflow_elasticsearch_tracking.evaluation_datasets import EvaluationDatasets
from mlflow_elasticsearch_tracking.experiment_search import ExperimentSearch
from mlflow_elasticsearch_tracking.inputs import Inputs
from mlflow_elasticsearch_tracking.issues import Issues
from mlflow_elasticsearch_tracking.labelling import Labelling
from mlflow_elasticsearch_tracking.logged_models import LoggedModels
from mlflow_elasticsearch_tracking.metrics import Metrics
from mlflow_elasticsearch_tracking.run_search import RunSearch
from mlflow_elasticsearch_tracking.runs import Runs
from mlflow_elasticsearch_tracking.scorers import Scorers
from mlflow_elasticsearch_tracking.spans import Spans
from mlflow_elasticsearch_tracking.trace_metrics import TraceMetrics
from mlflow_elasticsearch_tracking.trace_search import TraceSearch
from mlflow_elasticsearch_tracking.trace_sessions import TraceSessions
from mlflow_elasticsearch_tracking.traces import Traces
from mlflow_elasticsearch_tracking.unsupported import Unsupported
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings


class ElasticsearchTrackingStore(
    ExperimentSearch,
    Runs,
    Metrics,
    RunSearch,
    Inputs,
    LoggedModels,
    Traces,
    Spans,
    Assessments,
    TraceSearch,
    TraceMetrics,
    TraceSessions,
    EvaluationDatasets,
    Scorers,
    Labelling,
    Issues,
    Unsupported,
    AbstractStore,
):
    """MLflow's tracking store on Elasticsearch.

    Args:
        store_uri: `elasticsearch://host:9200/prefix`; see `ElasticsearchSettings`.
        artifact_uri: the artifact root of new experiments; `./mlartifacts` unless the running server has one.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a bad URI or setting. Nothing is connected yet.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        super().__init__()
        self.settings = ElasticsearchSettings.from_uri(store_uri)
        self.docs = Documents.of(self.settings)
        self.artifact_root_uri: str = resolve_uri_if_local(artifact_root(artifact_uri))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.location!r})"

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(f"{self!r} holds connections and cannot be pickled. Pickle the store's URI.")
