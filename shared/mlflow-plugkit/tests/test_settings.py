"""Settings: sources, types, required options, unknown options, secrets, strictness."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from mlflow.exceptions import MlflowException
from pydantic import SecretStr

from mlflow_plugkit.settings import InlineSecretWarning, Settings, option, options_table

SECRET = "hunter2-Zq8"


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Settings):
    schemes: ClassVar[tuple[str, ...]] = ("demo",)

    endpoint: str = option(env="MLFLOW_DEMO_ENDPOINT", help="Where the service listens.")
    timeout: float = option(30.0, env=("MLFLOW_DEMO_TIMEOUT", "DEMO_TIMEOUT"), help="Seconds to wait.")
    retries: int = option(3, help="Attempts.")
    verify: bool = option(True, env="MLFLOW_DEMO_VERIFY", in_uri=False, help="Check certificates.")
    mode: Literal["fast", "safe"] = option("safe", help="How to write.")
    hosts: tuple[str, ...] = option((), env="MLFLOW_DEMO_HOSTS", help="Allowed hosts | all.")
    ca_file: Path | None = option(None, env="MLFLOW_DEMO_CA", help="Certificates.")
    username: str | None = option(None, env="MLFLOW_DEMO_USER", help="User.")
    password: SecretStr | None = option(None, env="MLFLOW_DEMO_PASSWORD", help="Password.")
    token: SecretStr | None = option(None, env="MLFLOW_DEMO_TOKEN", help="Token.")


def read(uri: str = "demo://h/p?endpoint=e", **environ: str) -> DemoSettings:
    return DemoSettings.from_uri(uri, environ)


def test_the_uri_wins_over_the_environment_and_that_over_the_default() -> None:
    assert read().timeout == 30.0
    assert read(DEMO_TIMEOUT="7").timeout == 7.0
    assert read(DEMO_TIMEOUT="7", MLFLOW_DEMO_TIMEOUT="8").timeout == 8.0
    assert read("demo://h/p?endpoint=e&timeout=9", MLFLOW_DEMO_TIMEOUT="8").timeout == 9.0


def test_values_have_the_type_of_their_field() -> None:
    settings = read(
        "demo://h/p?endpoint=e&retries=5&mode=fast",
        MLFLOW_DEMO_VERIFY="off",
        MLFLOW_DEMO_HOSTS="a.example, b.example",
        MLFLOW_DEMO_CA="ca.pem",
    )
    assert (settings.retries, settings.mode, settings.verify) == (5, "fast", False)
    assert (settings.hosts, settings.ca_file) == (("a.example", "b.example"), Path("ca.pem"))


def test_settings_without_a_uri_come_from_the_environment_alone() -> None:
    settings = DemoSettings.from_env({"MLFLOW_DEMO_ENDPOINT": "e"})
    assert settings.uri is None
    assert settings.endpoint == "e"


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        read().timeout = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("uri", "environ", "says"),
    [
        ("demo://h/p", {}, "Set the environment variable MLFLOW_DEMO_ENDPOINT or the URI's option 'endpoint'"),
        ("demo://h?endpont=e", {}, "Unknown option 'endpont' in demo://h?endpont=e. Did you mean 'endpoint'?"),
        ("demo://h?zzz=1", {}, "Known options: endpoint, timeout"),
        ("demo://h?endpoint=e&verify=no", {}, "Option 'verify' cannot be set in a URI"),
        ("demo://h?endpoint=e&timeout=soon", {}, "is 'soon', which is no number"),
        ("demo://h?endpoint=e&mode=slow", {}, "no `fast` or `safe`"),
        ("demo://h?endpoint=e", {"MLFLOW_DEMO_TIMEOUT": "x"}, "environment variable MLFLOW_DEMO_TIMEOUT is 'x'"),
        ("other://h?endpoint=e", {}, "does not start with demo:"),
        ("demo://h?endpoint=e", {"MLFLOW_DEMO_TOKEN": "a", "MLFLOW_DEMO_TOKEN_FILE": "b"}, "Keep one"),
        ("demo://h?endpoint=e", {"MLFLOW_DEMO_TOKEN_FILE": "/no/such"}, "No such file"),
    ],
)
def test_bad_settings_are_refused_with_what_to_do(uri: str, environ: dict[str, str], says: str) -> None:
    with pytest.raises(MlflowException) as refusal:
        DemoSettings.from_uri(uri, environ)
    assert says in str(refusal.value)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    token = read(MLFLOW_DEMO_TOKEN_FILE=str(tmp_path / "token")).token
    assert token is not None
    assert token.get_secret_value() == SECRET


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_secret_file_without_a_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(MlflowException, match=r"empty|not UTF-8"):
        read(MLFLOW_DEMO_TOKEN_FILE=str(tmp_path / "token"))


def test_no_secret_is_in_a_repr_and_all_are_listed() -> None:
    with pytest.warns(InlineSecretWarning):
        settings = read(f"demo://ann:{SECRET}@h/p?endpoint=e", MLFLOW_DEMO_TOKEN="other-secret")
    assert SECRET not in repr(settings) + str(settings)
    assert "other-secret" not in repr(settings) + str(settings)
    assert set(settings.secrets()) == {SECRET, "other-secret"}
    assert settings.username == "ann"


@pytest.mark.parametrize("uri", [f"demo://ann:{SECRET}@h/p?endpoint=e", f"demo://h/p?endpoint=e&token={SECRET}"])
def test_an_inline_secret_works_with_a_warning_that_says_how_to_move_it(uri: str) -> None:
    with pytest.warns(InlineSecretWarning) as warned:
        read(uri)
    assert len(warned) == 1
    message = str(warned[0].message)
    assert SECRET not in message
    assert "MLflow stores such a URI in clear" in message
    assert "_FILE" in message


@pytest.mark.parametrize("value", ["true", "1", "YES", " on "])
def test_an_inline_secret_is_refused_when_strict(value: str) -> None:
    with pytest.raises(MlflowException, match="MLFLOW_PLUGKIT_STRICT") as refusal:
        read(f"demo://ann:{SECRET}@h/p?endpoint=e", MLFLOW_PLUGKIT_STRICT=value)
    assert SECRET not in str(refusal.value)


def test_a_malformed_secret_option_is_not_shown() -> None:
    with pytest.raises(MlflowException) as refusal:
        read(f"demo://h/p?endpoint=e&tokn={SECRET}&token={SECRET}")
    assert SECRET not in str(refusal.value).replace(f"tokn={SECRET}", "")


def test_the_table_of_options_names_each_with_its_variables() -> None:
    table = options_table(DemoSettings).splitlines()
    assert table[2] == "| `endpoint` | `MLFLOW_DEMO_ENDPOINT` | text | required | Where the service listens. |"
    assert "| `timeout` | `MLFLOW_DEMO_TIMEOUT`, `DEMO_TIMEOUT` | number | `30.0` | Seconds to wait. |" in table
    assert "|  | `MLFLOW_DEMO_VERIFY` | true or false | `true` | Check certificates. |" in table
    assert "|  | `MLFLOW_DEMO_TOKEN`, `MLFLOW_DEMO_TOKEN_FILE` | secret | none | Token. |" in table
    assert any("comma-separated list of text" in row and r"hosts \| all" in row for row in table)
