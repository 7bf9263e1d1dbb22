"""Every member of this MLflow's abstract store is implemented, inherited on purpose, or answers 501."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.inventory import BASE, HIDDEN, INHERITED, STORE
from mlflow_plugkit_elasticsearch.ledger import ledger, signature_differences

ROWS = ledger(STORE, BASE, INHERITED, HIDDEN)


def test_no_member_is_missing() -> None:
    assert [row for row in ROWS if row.verdict == "missing"] == []


def test_every_method_can_be_called_as_mlflow_calls_it() -> None:
    assert signature_differences(STORE, BASE) == []


@pytest.mark.parametrize("name", [row.name for row in ROWS if row.verdict == "501"])
def test_what_is_not_offered_says_so(name: str) -> None:
    """HTTP 501 and JSON: MLflow's server turns a bare NotImplementedError into an HTML page."""
    store = STORE("elasticsearch://127.0.0.1:9/never-asked")
    with pytest.raises(MlflowException, match=f"{name} is not supported: .{{20,}}") as caught:
        getattr(store, name)("x", y=1)
    assert caught.value.get_http_status_code() == 501
