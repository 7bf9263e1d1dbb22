"""The error table of OAuth 2.0 providers: RFC 6749 (5.2), RFC 8628 (3.5), RFC 8693 (2.2.2) and RFC 8707 (2)."""

from __future__ import annotations

from mlflow_plugkit.errors import ErrorRow, ErrorTable

TEMPORARY = frozenset({"temporarily_unavailable", "server_error"})
"""Error codes after which the same request may succeed a moment later."""


def _oauth_code(exc: BaseException) -> str | None:
    code = getattr(exc, "error", None)
    return code if isinstance(code, str) else None


OAUTH_ERRORS = ErrorTable(
    "OAuth 2.0 provider",
    [
        ErrorRow("invalid_client", "UNAUTHENTICATED", "Check MLFLOW_AUTH_CLIENT_ID, the client's secret, key or "
                 "assertion, and MLFLOW_AUTH_CLIENT_AUTH."),
        ErrorRow("invalid_grant", "UNAUTHENTICATED", "The refresh token, code or assertion has expired, was revoked or "
                 "was used before. Run `mlflow-auth login`, or renew the token file."),
        ErrorRow("unauthorized_client", "PERMISSION_DENIED", "The provider does not allow this client the grant of "
                 "MLFLOW_AUTH_GRANT."),
        ErrorRow("unsupported_grant_type", "INVALID_PARAMETER_VALUE", "Set MLFLOW_AUTH_GRANT to a grant that the "
                 "provider supports."),
        ErrorRow("invalid_scope", "INVALID_PARAMETER_VALUE", "Check MLFLOW_AUTH_SCOPE."),
        ErrorRow("invalid_target", "INVALID_PARAMETER_VALUE", "Check MLFLOW_AUTH_RESOURCE and MLFLOW_AUTH_AUDIENCE."),
        ErrorRow("invalid_request", "INVALID_PARAMETER_VALUE", "Check the settings MLFLOW_AUTH_*."),
        ErrorRow("access_denied", "PERMISSION_DENIED", "The login was refused. Run `mlflow-auth login` again."),
        ErrorRow("expired_token", "UNAUTHENTICATED", "The login took too long. Run `mlflow-auth login` again."),
        ErrorRow("mismatching_state", "UNAUTHENTICATED", "The answer belongs to another login. Run `mlflow-auth login` "
                 "again."),
        ErrorRow("requests.exceptions.SSLError", "INVALID_PARAMETER_VALUE", "The provider's certificate cannot be "
                 "verified, or it refused the client's: see MLFLOW_AUTH_CA_BUNDLE and MLFLOW_AUTH_CLIENT_CERTIFICATE."),
    ],
    code_of=_oauth_code,
)  # fmt: skip
