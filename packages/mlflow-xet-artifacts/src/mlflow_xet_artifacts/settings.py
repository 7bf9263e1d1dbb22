"""Settings: what the plugin reads from the `xet:` URI and from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option

PLACEHOLDERS = {"action": "Log", "count": 1, "path": "model"}


@dataclass(frozen=True, kw_only=True)
class XetSettings(Settings):
    """The options of a `xet:` URI. The repository's or bucket's name is read by `location_of`."""

    schemes: ClassVar[tuple[str, ...]] = ("xet",)

    repo_type: Literal["model", "dataset"] = option(
        "model", env="MLFLOW_XET_REPO_TYPE", help="Type of the Hub repository; of no meaning for a bucket."
    )
    create: bool = option(
        False, env="MLFLOW_XET_CREATE", help="Make a missing repository, branch or bucket at the first upload."
    )
    private: bool = option(True, env="MLFLOW_XET_PRIVATE", in_uri=False, help="Whether what `create` makes is private.")
    message: str = option(
        "{action} {count} artifacts in {path}",
        env="MLFLOW_XET_MESSAGE",
        in_uri=False,
        help="Commit message; `{action}` (Log or Delete), `{count}` and `{path}` are filled in.",
    )
    endpoint: str | None = option(
        None, env="HF_ENDPOINT", in_uri=False, help="URL of the Hub; without it https://huggingface.co."
    )
    token: SecretStr | None = option(
        None, env="HF_TOKEN", in_uri=False, help="Access token; without it the login that `hf auth login` stored."
    )
    timeout: float = option(
        120.0, env="MLFLOW_XET_TIMEOUT", in_uri=False, help="Seconds to wait for an answer of the Hub."
    )
    attempts: int = option(
        5, env="MLFLOW_XET_ATTEMPTS", in_uri=False, help="How often a request that failed in passing is sent in all."
    )

    def __post_init__(self) -> None:
        try:
            text = self.message.format(**PLACEHOLDERS)
        except (KeyError, IndexError, ValueError, AttributeError) as exc:
            raise mlflow_error(
                f"MLFLOW_XET_MESSAGE is {self.message!r}, which cannot be filled in ({exc}). "
                "It may hold {action}, {count} and {path}."
            ) from None
        if not text.strip():
            raise mlflow_error("MLFLOW_XET_MESSAGE is blank. A commit needs a message.")
        if self.timeout <= 0:
            raise mlflow_error(f"MLFLOW_XET_TIMEOUT is {self.timeout:g}. Give seconds above 0.")
        if self.attempts < 1:
            raise mlflow_error(f"MLFLOW_XET_ATTEMPTS is {self.attempts}. Give 1 or more.")
        if self.endpoint is not None and not self.endpoint.startswith(("https://", "http://")):
            raise mlflow_error("HF_ENDPOINT is no URL. Give one such as https://huggingface.co.")
