"""Settings: a URI and the environment become one frozen, validated dataclass.

A plugin declares its options once:

    @dataclass(frozen=True, kw_only=True)
    class DemoSettings(Settings):
        endpoint: str = option(env="MLFLOW_DEMO_ENDPOINT", help="Where the service listens.")
        timeout: float = option(30.0, env="MLFLOW_DEMO_TIMEOUT", help="Seconds to wait for an answer.")
        token: SecretStr | None = option(None, env="MLFLOW_DEMO_TOKEN", help="The API token.")

and reads them with `DemoSettings.from_uri("demo://host/path?timeout=5")`. The URI's query wins over
the environment, which wins over the default. `options_table` makes the README's table of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import SecretStr, TypeAdapter, ValidationError

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import PluginURI, parse_uri, redact_uri

if TYPE_CHECKING:
    from typing_extensions import Self

STRICT_VARIABLE = "MLFLOW_PLUGKIT_STRICT"


class InlineSecretWarning(UserWarning):
    """A URI holds a secret. MLflow stores URIs in clear and shows them in its UI."""


@dataclass(frozen=True)
class _Option:
    help: str
    env: tuple[str, ...]
    in_uri: bool
    secret: bool


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 # the field's standard name for it (click, argparse)
    env: str | tuple[str, ...] = (),
    in_uri: bool = True,
) -> Any:
    """Declare an option of a `Settings` class. Its name is the field's name, with `-` read as `_`.

    A field of type `SecretStr` (pydantic's) is a secret: its repr hides it, it can also be read from a
    file named by `<variable>_FILE`, and in a URI it causes an `InlineSecretWarning`.

    Args:
        default: the value where neither URI nor environment gives one; without it the option is required.
        help: one sentence for the table of options, with the unit where there is one.
        env: environment variables, the preferred one first.
        in_uri: False keeps the option out of the URI. Use it for what a client of the tracking server
            must not choose for the server: endpoints, credentials, certificate checks.
    """
    variables = (env,) if isinstance(env, str) else env
    return dataclasses.field(
        default=default, metadata={"plugkit": _Option(help=help, env=variables, in_uri=in_uri, secret=False)}
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class of a plugin's settings. Subclasses are frozen, keyword-only dataclasses.

    Attributes:
        uri: the parsed URI, or None where the plugin takes its settings from the environment alone.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    """The schemes this class accepts; empty accepts any."""

    uri: PluginURI | None = None

    @classmethod
    def from_uri(cls, uri: str, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from a URI and the environment (`os.environ` unless given).

        Fields named `username` and `password` also take the URI's own `user:password@`.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad URI, an unknown option (naming the
                nearest known one), a missing or malformed value, or, with MLFLOW_PLUGKIT_STRICT=true,
                a secret in the URI.
        """
        parsed = parse_uri(uri)
        if cls.schemes and parsed.scheme not in cls.schemes:
            expected = " or ".join(f"{s}:" for s in cls.schemes)
            raise mlflow_error(f"{redact_uri(uri)!r} does not start with {expected}")
        return cls._read(parsed, os.environ if environ is None else environ)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from the environment alone; errors as for `from_uri`."""
        return cls._read(None, os.environ if environ is None else environ)

    def secrets(self) -> tuple[str, ...]:
        """Every secret value held here, for `ErrorTable.applied` and `get_logger`."""
        values = (getattr(self, f.name) for f in dataclasses.fields(self))
        held = [v.get_secret_value() for v in values if isinstance(v, SecretStr)]
        if self.uri and self.uri.password:
            held.append(self.uri.password)
        return tuple(held)

    @classmethod
    def _read(cls, uri: PluginURI | None, environ: Mapping[str, str]) -> Self:
        options = declared_options(cls)
        given = {name.replace("-", "_"): value for name, value in (uri.query if uri else ())}
        _refuse_unknown(given, options, uri)
        if uri:
            given |= {n: v for n, v in (("username", uri.username), ("password", uri.password)) if v and n in options}
            _check_inline_secrets(cls, uri, given, options, environ)
        values: dict[str, Any] = {}
        for name, declared in options.items():
            text, source = given.get(name), f"option {name!r} of {uri}"
            if text is None:
                text, source = _from_environment(declared, environ)
            if text is not None:
                values[name] = _convert(cls, name, text, source, secret=declared.secret)
            elif _is_required(cls, name):
                raise mlflow_error(f"{cls.__name__}: {_how_to_set(name, declared)}. It is required: {declared.help}")
        return cls(uri=uri, **values)


def declared_options(cls: type[Settings]) -> Mapping[str, _Option]:
    """The options of a settings class by name, in the order of declaration."""
    return _schema(cast("Any", cls))[0]


@cache
def _schema(cls: Any) -> tuple[Mapping[str, _Option], Mapping[str, Any]]:
    """Options and types of a settings class, read once: providers make their settings for each request."""
    hints = typing.get_type_hints(cls)
    options = {
        f.name: dataclasses.replace(f.metadata["plugkit"], secret=SecretStr in _members(hints[f.name]))
        for f in dataclasses.fields(cls)
        if "plugkit" in f.metadata
    }
    return options, hints


def options_table(cls: type[Settings]) -> str:
    """The Markdown table of a settings class: what a README shows between its `options` markers."""
    hints = _hints(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    lines = ["| option in the URI | environment | type | default | meaning |", "|---|---|---|---|---|"]
    for name, declared in declared_options(cls).items():
        files = [f"{v}_FILE" for v in declared.env] if declared.secret else []
        cells = (
            f"`{name}`" if declared.in_uri and not declared.secret else "",
            ", ".join(f"`{v}`" for v in [*declared.env, *files]),
            _type_name(hints[name]),
            _default_text(defaults[name]),
            declared.help,
        )
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def is_strict(environ: Mapping[str, str] | None = None) -> bool:
    """Whether MLFLOW_PLUGKIT_STRICT asks to refuse what is otherwise only warned about."""
    value = (os.environ if environ is None else environ).get(STRICT_VARIABLE, "")
    return value.strip().lower() in ("1", "true", "yes", "on")


def _refuse_unknown(given: Mapping[str, str], options: Mapping[str, _Option], uri: PluginURI | None) -> None:
    known = [name for name, declared in options.items() if declared.in_uri]
    for name in given:
        if name in known:
            continue
        if name in options:
            raise mlflow_error(f"Option {name!r} cannot be set in a URI ({uri}). {_how_to_set(name, options[name])}.")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known options: {', '.join(known) or 'none'}."
        raise mlflow_error(f"Unknown option {name!r} in {uri}. {hint}")


def _check_inline_secrets(
    cls: type[Settings],
    uri: PluginURI,
    given: Mapping[str, str],
    options: Mapping[str, _Option],
    environ: Mapping[str, str],
) -> None:
    inline = [name for name in given if options[name].secret]
    if uri.password and "password" not in inline:
        inline.append("password")
    if not inline:
        return
    secrets = {n: o for n, o in options.items() if o.secret and o.env}
    remedy = " ".join(f"{_how_to_set(n, secrets[n])}, and take it out of the URI." for n in inline if n in secrets)
    message = (
        f"{uri} holds a secret ({', '.join(inline)}). MLflow stores such a URI in clear, in the experiment's "
        f"artifact location, and shows it in its UI and API. {remedy or 'Take it out of the URI.'}"
    )
    if is_strict(environ):
        raise mlflow_error(f"{message} Refused because {STRICT_VARIABLE} is set.")
    warnings.warn(message, InlineSecretWarning, stacklevel=4)


def _from_environment(declared: _Option, environ: Mapping[str, str]) -> tuple[str | None, str]:
    for variable in declared.env:
        value, file = environ.get(variable), environ.get(f"{variable}_FILE") if declared.secret else None
        if value and file:
            raise mlflow_error(f"Both {variable} and {variable}_FILE are set. Keep one.")
        if value:
            return value, f"environment variable {variable}"
        if file:
            return _read_secret_file(variable, file), f"file named by {variable}_FILE"
    return None, ""


def _read_secret_file(variable: str, file: str) -> str:
    try:
        value = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise mlflow_error(f"The file {file!r} that {variable}_FILE names cannot be read: {reason}.") from None
    if not value:
        raise mlflow_error(f"The file {file!r} that {variable}_FILE names is empty.")
    return value


def _convert(cls: type[Settings], name: str, text: str, source: str, *, secret: bool) -> Any:
    if secret:
        return SecretStr(text)
    hint = _hints(cls)[name]
    value: Any = [part.strip() for part in text.split(",")] if typing.get_origin(hint) is tuple else text
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]["msg"]
        raise mlflow_error(f"The {source} is {text!r}, which is no {_type_name(hint)}: {reason}.") from None


def _is_required(cls: type[Settings], name: str) -> bool:
    return cls.__dataclass_fields__[name].default is dataclasses.MISSING


def _how_to_set(name: str, declared: _Option) -> str:
    ways = [f"the environment variable {declared.env[0]}"] if declared.env else []
    if declared.secret and declared.env:
        ways.append(f"{declared.env[0]}_FILE (the path of a file that holds it)")
    if declared.in_uri and not declared.secret:
        ways.append(f"the URI's option '{name}'")
    return "Set " + " or ".join(ways)


def _hints(cls: type[Settings]) -> Mapping[str, Any]:
    return _schema(cast("Any", cls))[1]


@lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _members(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _type_name(hint: Any) -> str:
    names = []
    for member in _members(hint):
        if member is types.NoneType:
            continue
        if typing.get_origin(member) is typing.Literal:
            names.append(" or ".join(f"`{v}`" for v in typing.get_args(member)))
        elif typing.get_origin(member) is tuple:
            names.append(f"comma-separated list of {_type_name(typing.get_args(member)[0])}")
        else:
            plain = {
                str: "text",
                int: "whole number",
                float: "number",
                bool: "true or false",
                SecretStr: "secret",
            }
            names.append(plain.get(member, getattr(member, "__name__", str(member))))
    return " or ".join(names)


def _default_text(default: Any) -> str:
    if default is dataclasses.MISSING:
        return "required"
    if default is None or default == ():
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
