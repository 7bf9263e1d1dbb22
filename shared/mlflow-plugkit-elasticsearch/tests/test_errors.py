"""The table of errors: each row's code and hint, and what it is found by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, SerializationError, TlsError
from elasticsearch import ApiError, BadRequestError, UnsupportedProductError
from mlflow.exceptions import MlflowException

from mlflow_plugkit_elasticsearch.client import is_retryable
from mlflow_plugkit_elasticsearch.errors import ERRORS, code_of


def answer(status: int, error_type: str | None = None, cls: Any = ApiError) -> Any:
    """What the official client raises for an answer of Elasticsearch."""
    body = {"error": {"type": error_type, "reason": "r"}, "status": status} if error_type else "<html>"
    return cls("message", meta=SimpleNamespace(status=status), body=body)


@pytest.mark.parametrize(
    ("exc", "code", "retried"),
    [
        (answer(400, "parsing_exception", BadRequestError), "INTERNAL_ERROR", False),
        (answer(400, "too_many_clauses"), "INVALID_PARAMETER_VALUE", False),
        (answer(401, "security_exception"), "UNAUTHENTICATED", False),
        (answer(403, "security_exception"), "PERMISSION_DENIED", False),
        (answer(403, "cluster_block_exception"), "TEMPORARILY_UNAVAILABLE", False),
        (answer(404, "index_not_found_exception"), "RESOURCE_DOES_NOT_EXIST", False),
        (answer(404), "RESOURCE_DOES_NOT_EXIST", False),
        (answer(409, "version_conflict_engine_exception"), "RESOURCE_CONFLICT", False),
        (answer(413), "INVALID_PARAMETER_VALUE", False),
        (answer(429, "es_rejected_execution_exception"), "RESOURCE_EXHAUSTED", True),
        (answer(429, "circuit_breaking_exception"), "RESOURCE_EXHAUSTED", True),
        (answer(500, "exception"), "INTERNAL_ERROR", False),
        (answer(502), "TEMPORARILY_UNAVAILABLE", True),
        (answer(503, "unavailable_shards_exception"), "TEMPORARILY_UNAVAILABLE", True),
        (answer(504), "TEMPORARILY_UNAVAILABLE", True),
        (NoConnection("refused"), "TEMPORARILY_UNAVAILABLE", True),
        (ConnectionTimeout("late"), "TEMPORARILY_UNAVAILABLE", True),
        (TlsError("bad certificate"), "INVALID_PARAMETER_VALUE", False),
        (SerializationError("no JSON"), "INTERNAL_ERROR", False),
        (UnsupportedProductError("m", meta=SimpleNamespace(status=200), body={}), "INVALID_PARAMETER_VALUE", False),
    ],
    ids=str,
)
def test_each_error_has_a_code_and_is_repeated_where_that_helps(exc: Any, code: str, retried: bool) -> None:
    """The original error is the cause, the message ends with a hint."""
    assert is_retryable(exc) is retried
    with pytest.raises(MlflowException, match="Elasticsearch: could not do this: ") as error, ERRORS.applied("do this"):
        raise exc
    assert error.value.error_code == code
    assert error.value.__cause__ is exc
    assert str(error.value).rstrip().endswith(".")


@pytest.mark.parametrize("exc", [ValueError("x"), KeyError("x"), answer(418)], ids=str)
def test_an_error_that_no_row_knows_stays_as_it_is(exc: Exception) -> None:
    """Nothing unknown is hidden behind a friendly sentence."""
    assert ERRORS.row_for(exc) is None
    with pytest.raises(type(exc)), ERRORS.applied("do this"):
        raise exc


def test_every_row_can_be_found() -> None:
    """A row whose class or type no answer has would be dead."""
    import importlib

    for row in ERRORS.rows:
        if row.match.startswith("HTTP "):
            assert code_of(answer(int(row.match[5:]))) == row.match
        elif "." in row.match:
            module, _, name = row.match.rpartition(".")
            assert isinstance(getattr(importlib.import_module(module), name), type)
        else:
            assert code_of(answer(400, row.match)) == row.match
