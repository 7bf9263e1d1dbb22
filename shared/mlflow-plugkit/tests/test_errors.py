"""The error table and its choke point, missing requirements, and loggers."""

from __future__ import annotations

import io
import json
import logging
import traceback

import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit.errors import ErrorRow, ErrorTable, mlflow_error, not_implemented, without
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.requirements import require

SECRET = "hunter2-Zq8"


class ServiceError(Exception):
    def __init__(self, code: str, message: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class NestedError(ServiceError): ...


TABLE = ErrorTable(
    "Demo",
    [
        ErrorRow("NoSuchKey", "RESOURCE_DOES_NOT_EXIST", "Check the key."),
        ErrorRow("builtins.OSError", "TEMPORARILY_UNAVAILABLE", "Try again."),
        ErrorRow("builtins.PermissionError", "PERMISSION_DENIED", "Ask the owner."),
    ],
    code_of=lambda exc: getattr(exc, "code", None),
)


def caught(exc: Exception, **kwargs: object) -> MlflowException:
    with pytest.raises(MlflowException) as error, TABLE.applied("read a.txt", **kwargs):  # type: ignore[arg-type]
        raise exc
    return error.value


def test_a_backend_code_becomes_mlflows_code_with_status_and_hint() -> None:
    original = NestedError("NoSuchKey", "a.txt is gone")
    error = caught(original)
    assert (error.error_code, error.get_http_status_code()) == ("RESOURCE_DOES_NOT_EXIST", 404)
    assert str(error) == "Demo: could not read a.txt: a.txt is gone. Check the key."
    assert error.__cause__ is original


def test_the_most_derived_class_wins() -> None:
    assert caught(PermissionError("no")).error_code == "PERMISSION_DENIED"
    assert caught(ConnectionResetError("reset")).error_code == "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("exc", [ValueError("bug"), ServiceError("Unheard"), KeyboardInterrupt()])
def test_an_unknown_error_passes_unchanged(exc: BaseException) -> None:
    with pytest.raises(type(exc)) as error, TABLE.applied("read a.txt"):
        raise exc
    assert error.value is exc


def test_mlflows_own_errors_pass_unchanged() -> None:
    inner = mlflow_error("bad name")
    with pytest.raises(MlflowException) as error, TABLE.applied("read a.txt"):
        raise inner
    assert error.value is inner


def fail_to_log_in(hidden_in: str) -> None:
    if hidden_in == "message":
        raise OSError(f"login with {SECRET} failed")
    try:
        raise ValueError(SECRET)
    except ValueError as exc:
        raise OSError("login failed") from exc


@pytest.mark.parametrize("hidden_in", ["message", "cause"])
def test_a_secret_in_an_error_is_in_no_traceback(hidden_in: str) -> None:
    with pytest.raises(MlflowException, match="could not connect") as error, TABLE.applied("connect", [SECRET]):
        fail_to_log_in(hidden_in)
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_two_rows_for_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same name"):
        ErrorTable("Demo", [ErrorRow("A", "NOT_FOUND"), ErrorRow("A", "NOT_FOUND")])


def test_an_unknown_mlflow_code_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="NO_SUCH_CODE"):
        mlflow_error("x", "NO_SUCH_CODE")


def test_what_is_not_offered_answers_501_as_json() -> None:
    error = not_implemented("Webhooks", "this store keeps none")
    assert error.get_http_status_code() == 501
    assert json.loads(error.serialize_as_json())["error_code"] == "NOT_IMPLEMENTED"


def test_a_class_without_an_operation_says_so_by_its_name() -> None:
    @without("the archive is read-only", "delete", "rename")
    class Archive:
        def read(self) -> int:
            return 1

        def delete(self) -> None:
            raise NotImplementedError

    assert Archive().read() == 1
    for name in ("delete", "rename"):
        with pytest.raises(MlflowException, match=f"{name} is not supported: the archive is read-only") as error:
            getattr(Archive(), name)("a", force=True)
        assert error.value.error_code == "NOT_IMPLEMENTED"


def test_a_missing_requirement_names_the_command() -> None:
    with pytest.raises(MlflowException, match=r"pip install 'mlflow-demo\[fast\]'") as error:
        require("no_such_module_here", distribution="mlflow-demo", extra="fast")
    assert error.value.error_code == "FEATURE_DISABLED"
    assert isinstance(error.value.__cause__, ImportError)
    assert require("json", distribution="mlflow-demo") is json


def logged(name: str, *secrets: str) -> tuple[logging.Logger, io.StringIO]:
    logger, stream = get_logger(name, secrets), io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    return logger, stream


def test_a_logger_hides_secrets_in_messages_arguments_and_tracebacks() -> None:
    logger, stream = logged("mlflow_demo_a", SECRET)
    logger.warning("login %s at %s", SECRET, f"demo://ann:{SECRET}@host")
    try:
        raise ValueError(f"bad password {SECRET}")
    except ValueError:
        logger.exception("it failed")
    assert SECRET not in stream.getvalue()
    assert "demo://ann:***@host" in stream.getvalue()
    assert "ValueError: bad password ***" in stream.getvalue()


def test_asking_twice_for_a_logger_adds_secrets_and_no_second_filter() -> None:
    first, stream = logged("mlflow_demo_b", "first-secret")
    assert get_logger("mlflow_demo_b", ["second-secret"]) is first
    first.error("first-secret second-secret")
    assert stream.getvalue() == "*** ***\n"
    assert len(first.filters) == 1
