"""What the environment may say. The headers themselves usually stand in the file that it names."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_plugkit.settings import Settings, declared_options, option


@dataclass(frozen=True, kw_only=True, repr=False)
class HeaderSettings(Settings):
    """The options. The repr shows none of them: a header's value may be a secret."""

    file: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_REQUEST_HEADERS_FILE",
        help="Path of a TOML file (or JSON, where its name ends in `.json`) that holds the headers.",
    )
    headers: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_REQUEST_HEADERS",
        help="More headers, one `Name: value` a line, or a JSON object. They win over those of the file.",
    )
    required: tuple[str, ...] = option(
        (),
        in_uri=False,
        env="MLFLOW_REQUEST_HEADERS_REQUIRED",
        help="Names of headers without which no request is sent; added to the file's list.",
    )
    traceparent: bool | None = option(
        None,
        in_uri=False,
        env="MLFLOW_REQUEST_HEADERS_TRACEPARENT",
        help="Send the active OpenTelemetry span as `traceparent`. Unset: what the file says, otherwise true.",
    )
    request_id: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_REQUEST_HEADERS_REQUEST_ID",
        help="Name of the header with a new id for each request, or `none`. Unset: what the file says, "
        "otherwise `X-Request-ID`.",
    )


VARIABLES = tuple(variable for declared in declared_options(HeaderSettings).values() for variable in declared.env)
"""The environment variables of the options, in their order."""
