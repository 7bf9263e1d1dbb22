"""Elasticsearch's errors in MLflow's vocabulary.

The codes are the `type` of Elasticsearch's JSON errors
(https://www.elastic.co/docs/reference/elasticsearch/rest-apis/api-conventions), `HTTP <status>` where an answer
has none, and the exception classes of the official client.
"""

from __future__ import annotations

from typing import Any

from mlflow_plugkit.errors import ErrorRow, ErrorTable

#: Statuses after which the same request may succeed a moment later.
RETRYABLE_STATUS = frozenset({429, 502, 503, 504})


def code_of(exc: BaseException) -> str | None:
    """The type of an Elasticsearch error that a row knows, else `HTTP <status>`; None for other exceptions."""
    status = status_of(exc)
    if status is None:
        return None
    name = error_type(exc)
    return name if name in _KNOWN_TYPES else f"HTTP {status}"


def status_of(exc: BaseException) -> int | None:
    """The HTTP status of an answer that the client raised, or None."""
    status = getattr(getattr(exc, "meta", None), "status", None)
    return status if isinstance(status, int) else None


def error_type(exc: BaseException) -> str:
    """The `error.type` of an answer, "" where it has none."""
    body: Any = getattr(exc, "body", None)
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


_ROWS = (
    ErrorRow("HTTP 400", "INTERNAL_ERROR", "Elasticsearch refused the request; please report this with the message."),
    ErrorRow("HTTP 401", "UNAUTHENTICATED", "Check MLFLOW_ELASTICSEARCH_API_KEY or the user and password."),
    ErrorRow("HTTP 403", "PERMISSION_DENIED", "Give the role the privileges that the README lists."),
    ErrorRow("HTTP 404", "RESOURCE_DOES_NOT_EXIST", "Check the URI's prefix, or run `mlflow-elasticsearch bootstrap`."),
    ErrorRow("HTTP 409", "RESOURCE_CONFLICT", "Somebody else changed it at the same moment: try again."),
    ErrorRow("HTTP 413", "INVALID_PARAMETER_VALUE", "Send less at once, or raise http.max_content_length."),
    ErrorRow("HTTP 429", "RESOURCE_EXHAUSTED", "The cluster is overloaded: try again later, or give it more nodes."),
    ErrorRow("HTTP 500", "INTERNAL_ERROR", "Look into the log of the Elasticsearch node."),
    ErrorRow("HTTP 502", "TEMPORARILY_UNAVAILABLE", "The proxy in front of Elasticsearch had no answer: try again."),
    ErrorRow("HTTP 503", "TEMPORARILY_UNAVAILABLE", "Check the cluster's health: GET _cluster/health."),
    ErrorRow("HTTP 504", "TEMPORARILY_UNAVAILABLE", "The answer took too long: try again."),
    ErrorRow(
        "cluster_block_exception",
        "TEMPORARILY_UNAVAILABLE",
        "The index is blocked for writes, often by a full disk (flood-stage watermark): free space on the nodes.",
    ),
    ErrorRow(
        "too_many_clauses", "INVALID_PARAMETER_VALUE", "The filter is too large: name fewer values in its IN lists."
    ),
    ErrorRow(
        "circuit_breaking_exception", "RESOURCE_EXHAUSTED", "The node is short of heap: ask for less, or enlarge it."
    ),
    ErrorRow("index_not_found_exception", "RESOURCE_DOES_NOT_EXIST", "Run `mlflow-elasticsearch bootstrap`."),
    ErrorRow("validation_exception", "RESOURCE_EXHAUSTED", "The cluster may hold no more shards: raise its limit."),
    ErrorRow("elastic_transport.ConnectionTimeout", "TEMPORARILY_UNAVAILABLE", "Raise MLFLOW_ELASTICSEARCH_TIMEOUT."),
    ErrorRow(
        "elastic_transport.TlsError",
        "INVALID_PARAMETER_VALUE",
        "Set MLFLOW_ELASTICSEARCH_CA_FILE or MLFLOW_ELASTICSEARCH_FINGERPRINT; for a node without TLS add ?tls=false.",
    ),
    ErrorRow(
        "elastic_transport.ConnectionError",
        "TEMPORARILY_UNAVAILABLE",
        "Check the host and port of the URI, and that the node is up.",
    ),
    ErrorRow(
        "elasticsearch.UnsupportedProductError",
        "INVALID_PARAMETER_VALUE",
        "The server is not Elasticsearch (OpenSearch is not supported): check the URI.",
    ),
    ErrorRow(
        "elastic_transport.SerializationError",
        "INTERNAL_ERROR",
        "Something between here and Elasticsearch changed the answer.",
    ),
)
_KNOWN_TYPES = frozenset(row.match for row in _ROWS if row.match.isidentifier())
#: The choke point: every request runs inside `ERRORS.applied(...)`.
ERRORS = ErrorTable("Elasticsearch", _ROWS, code_of)
