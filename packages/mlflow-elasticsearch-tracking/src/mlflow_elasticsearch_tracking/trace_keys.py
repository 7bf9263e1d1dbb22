"""Names that MLflow's traces carry on the wire, whichever MLflow wrote them (mlflow.tracing.constant)."""

from __future__ import annotations

TRACE_NAME = "mlflow.traceName"
SPANS_LOCATION = "mlflow.trace.spansLocation"
LINKED_PROMPTS = "mlflow.linkedPrompts"
ARTIFACT_LOCATION = "mlflow.artifactLocation"
IN_STORE = "TRACKING_STORE"
IN_ARCHIVE = "ARCHIVE_REPO"

SOURCE_RUN = "mlflow.sourceRun"
ASSESSMENT_SOURCE_RUN = "mlflow.assessment.sourceRunId"
SIZE_STATS = "mlflow.trace.sizeStats"
TOKEN_USAGE = "mlflow.trace.tokenUsage"  # noqa: S105 # no password
COST = "mlflow.trace.cost"
SESSION = "mlflow.trace.session"
USER = "mlflow.trace.user"
FINALIZED = "mlflow.trace.infoFinalized"

SPAN_INPUTS = "mlflow.spanInputs"
SPAN_OUTPUTS = "mlflow.spanOutputs"
SPAN_USAGE = "mlflow.chat.tokenUsage"
SPAN_COST = "mlflow.llm.cost"
SPAN_MODEL = "mlflow.llm.model"
SPAN_PROVIDER = "mlflow.llm.provider"
SPAN_SESSION = ("session.id", "gen_ai.conversation.id")
SPAN_USER = "user.id"
SPAN_TRACE_TAG = "mlflow.traceTag."

TOKEN_KEYS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)
#: Added up wherever a span has them; the first three count as 0 where a span has others only.
ALWAYS_TOKENS = TOKEN_KEYS[:3]
COST_KEYS = ("input_cost", "output_cost", "total_cost")
#: Metadata that are columns: filters and figures need their parts.
COLUMNS = {TOKEN_USAGE: TOKEN_KEYS, COST: COST_KEYS}
