"""The configuration of a deployment or an endpoint: `-C key=value`, or `config={...}` in Python."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr, TypeAdapter, ValidationError

from mlflow_plugkit.errors import mlflow_error

Variables = dict[str, str]
Weights = dict[str, float]
EnvManager = Literal["auto", "local", "virtualenv", "uv", "conda"]


@dataclass(frozen=True)
class _Key:
    help: str
    low: float
    high: float
    applies: str


def key(
    default: Any,
    *,
    help: str,  # noqa: A002 # the field's standard name for it
    low: float = 0,
    high: float = math.inf,
    applies: Literal["both", "deployment", "endpoint"] = "both",
    factory: bool = False,
) -> Any:
    """Declare a key: its bounds where it is a number, and what it is a key of."""
    about = {"key": _Key(help, low, high, applies)}
    if factory:
        return dataclasses.field(default_factory=default, metadata=about)
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a user may choose."""

    workers: int = key(1, low=1, high=256, help="Processes that answer requests.")
    standby: int = key(
        1,
        high=16,
        help="Processes that wait with the model loaded, for the place of one that ends. Each needs a worker's memory.",
    )
    host: str = key("127.0.0.1", help="Address to listen on. Only at creation.")
    port: int = key(
        0, high=65535, help="Port to listen on; 0 lets the system choose one, which is kept. Only at creation."
    )
    env_manager: EnvManager | None = key(  # noqa: RUF009 # frozen
        None,
        applies="deployment",
        help="`local` is this Python; `virtualenv`, `uv`, `conda` are the model's own, made by MLflow; `auto` is "
        "`local` where this Python meets the model's requirements, otherwise `uv` or `virtualenv`.",
    )
    timeout_seconds: float = key(60.0, low=0.1, help="A request that has no answer by then gets 504, in seconds.")
    max_body_bytes: int = key(67_108_864, low=1, help="A request with a larger body gets 413.")
    start_seconds: float = key(300.0, low=1, help="How long a worker may take to be ready, in seconds.")
    drain_seconds: float = key(
        30.0, help="How long requests may take that were begun when a worker is replaced, in seconds."
    )
    hang_seconds: float = key(
        60.0, help="A worker whose event loop stands still for so long is replaced, in seconds; 0 never."
    )
    access_log: bool = key(False, help="Write a line for each request.")
    env: Variables = key(  # noqa: RUF009 # frozen
        dict, factory=True, help="Variables of the workers, `A=1,B=2` or JSON. They are stored: no place for a secret."
    )
    model_config: dict[str, Any] | None = key(  # noqa: RUF009 # frozen
        None, applies="deployment", help="JSON that replaces values of the model's own `model_config`."
    )
    api_key: SecretStr | Literal["none"] | None = key(  # noqa: RUF009 # frozen
        None, help="The API key; better given by `MLFLOW_LOCAL_DEPLOY_API_KEY_FILE`. `none`: ask for no key any more."
    )
    traffic: Weights = key(  # noqa: RUF009 # frozen
        dict,
        factory=True,
        help="Endpoint: the deployments' weights, `a=90,b=10`. Deployment created in an endpoint: its own weight.",
        applies="both",
    )
    shadow: Weights = key(  # noqa: RUF009 # frozen
        dict,
        factory=True,
        applies="endpoint",
        help="Deployments that get copies of requests, and of how many percent: `c=100`.",
    )

    @classmethod
    def read(cls, given: Mapping[str, Any] | None, kind: str, base: Config | None = None) -> Config:
        """Check a configuration; what it does not say stays as in `base`.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for an unknown key (naming the nearest known one) or a bad value.
        """
        values = {name: getattr(base, name) for name in keys()} if base else {}
        for name, value in (given or {}).items():
            values[_known(str(name).replace("-", "_"), kind)] = value
        for name, value in values.items():
            values[name] = _converted(name, value)
        return cls(**values)

    def shown(self, kind: str = "deployment") -> dict[str, Any]:
        """As JSON, without the API key and the weights."""
        return {name: getattr(self, name) for name in keys(kind) if name not in ("api_key", "traffic", "shadow")}


def keys(kind: str | None = None) -> dict[str, _Key]:
    """The keys by name, in the order of declaration."""
    found = {f.name: f.metadata["key"] for f in dataclasses.fields(Config)}
    return {name: about for name, about in found.items() if kind is None or about.applies in ("both", kind)}


def keys_table() -> str:
    """The Markdown table of the keys, as the README shows it."""
    lines = ["| key | of | default | meaning |", "|---|---|---|---|"]
    defaults = Config()
    for name, about in keys().items():
        default = getattr(defaults, name)
        text = "" if default in (None, {}) else f"`{json.dumps(default) if isinstance(default, bool) else default}`"
        of = {"both": "deployment, endpoint"}.get(about.applies, about.applies)
        lines.append(f"| `{name}` | {of} | {text} | {about.help} |")
    return "\n".join(lines)


def _known(name: str, kind: str) -> str:
    known = keys(kind)
    if name in known:
        return name
    if name in keys():
        raise mlflow_error(f"The key {name!r} is none of {kind}s.")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
    raise mlflow_error(f"Unknown key {name!r} in the configuration. {hint}")


def _converted(name: str, value: Any) -> Any:
    if name == "api_key":
        return _key_of(value)
    hint, about = typing.get_type_hints(Config)[name], keys()[name]
    if name in ("env", "traffic", "shadow", "model_config"):
        value = _mapping(name, value)
    try:
        found = TypeAdapter(hint).validate_python(value)
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]["msg"]
        raise mlflow_error(f"The configuration's {name!r} is {value!r}: {reason}.") from None
    if name == "env":
        _check_variables(found)
    numbers = list(found.values()) if name in ("traffic", "shadow") else [found]
    for number in numbers:
        bad = isinstance(number, float) and not math.isfinite(number)
        if isinstance(number, (int, float)) and (bad or not about.low <= number <= about.high):
            raise mlflow_error(f"The configuration's {name!r} is {value!r}, not in {about.low:g} to {about.high:g}.")
    return found


def _check_variables(variables: Variables) -> None:
    """Refuse what the system refuses, before a worker is to be started with it."""
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise mlflow_error(
                f"The configuration's 'env' has a variable {name!r} that no process can have: a name holds no '=', "
                "and neither name nor value a NUL."
            )


def _key_of(value: Any) -> Any:
    if value is None or isinstance(value, SecretStr) or value == "none":
        return value
    return SecretStr(str(value))


def _mapping(name: str, value: Any) -> Any:
    if name == "traffic" and isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as exc:
            raise mlflow_error(f"The configuration's {name!r} is no JSON: {exc}.") from None
    if name == "traffic" and "=" not in value:
        return {"": value}  # the weight of the deployment that is being created
    parts = [part for part in value.split(",") if part.strip()]
    if name == "model_config" or not all("=" in part for part in parts):
        form = "JSON" if name == "model_config" else "A=1,B=2 or JSON"
        raise mlflow_error(f"The configuration's {name!r} is {value!r}: write it as {form}.")
    pairs = [part.partition("=") for part in parts]
    return {left.strip(): right.strip() for left, _, right in pairs}
