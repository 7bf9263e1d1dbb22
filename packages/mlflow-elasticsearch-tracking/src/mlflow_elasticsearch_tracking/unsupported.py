"""What this store answers with 501, each with its reason."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase
from mlflow_plugkit.errors import without

GATEWAY_REASON = (
    "this store keeps no AI gateway: MLflow runs its gateway on SQL backend stores only (mlflow.server.gateway_api). "
    "Run the gateway beside a SQL backend store, or call the providers directly."
)
MCP_REASON = "this store keeps no MCP server registry yet. Run it beside a SQL backend store."
ARCHIVAL_REASON = (
    "this store does not move traces into an artifact repository: their spans stay searchable. Bound them with an "
    "Elasticsearch snapshot policy, or delete old traces with MlflowClient.delete_traces."
)
ONLINE_TRACE_REASON = "online trace details come from Databricks inference tables alone. Use get_trace."

GATEWAY = (
    "create_gateway_secret",
    "get_secret_info",
    "update_gateway_secret",
    "delete_gateway_secret",
    "list_secret_infos",
    "create_gateway_model_definition",
    "get_gateway_model_definition",
    "list_gateway_model_definitions",
    "update_gateway_model_definition",
    "delete_gateway_model_definition",
    "create_gateway_endpoint",
    "get_gateway_endpoint",
    "update_gateway_endpoint",
    "delete_gateway_endpoint",
    "list_gateway_endpoints",
    "attach_model_to_endpoint",
    "detach_model_from_endpoint",
    "create_endpoint_binding",
    "delete_endpoint_binding",
    "list_endpoint_bindings",
    "set_gateway_endpoint_tag",
    "delete_gateway_endpoint_tag",
    "create_budget_policy",
    "get_budget_policy",
    "update_budget_policy",
    "delete_budget_policy",
    "list_budget_policies",
    "sum_gateway_trace_cost",
    "create_gateway_guardrail",
    "get_gateway_guardrail",
    "delete_gateway_guardrail",
    "list_gateway_guardrails",
    "add_guardrail_to_endpoint",
    "update_endpoint_guardrail_config",
    "remove_guardrail_from_endpoint",
    "list_endpoint_guardrail_configs",
)
MCP = (
    "create_mcp_server",
    "get_mcp_server",
    "search_mcp_servers",
    "update_mcp_server",
    "delete_mcp_server",
    "create_mcp_server_version",
    "get_mcp_server_version",
    "get_mcp_server_version_by_alias",
    "get_latest_mcp_server_version",
    "search_mcp_server_versions",
    "update_mcp_server_version",
    "delete_mcp_server_version",
    "create_mcp_access_endpoint",
    "get_mcp_access_endpoint",
    "search_mcp_access_endpoints",
    "update_mcp_access_endpoint",
    "delete_mcp_access_endpoint",
    "set_mcp_server_tag",
    "delete_mcp_server_tag",
    "set_mcp_server_version_tag",
    "delete_mcp_server_version_tag",
    "set_mcp_server_alias",
    "delete_mcp_server_alias",
    "link_mcp_server_versions_to_trace",
    "get_mcp_server_versions_for_trace",
)


@without(GATEWAY_REASON, *GATEWAY)
@without(MCP_REASON, *MCP)
@without(ARCHIVAL_REASON, "archive_traces")
@without(ONLINE_TRACE_REASON, "get_online_trace_details")
class Unsupported(StoreBase):
    """Operations that answer `NOT_IMPLEMENTED`."""
