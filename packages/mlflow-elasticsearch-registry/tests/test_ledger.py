"""Every member of this MLflow's abstract store is implemented, inherited on purpose."""

from __future__ import annotations

from mlflow_elasticsearch_registry.inventory import BASE, HIDDEN, INHERITED, STORE
from mlflow_plugkit_elasticsearch.ledger import ledger, signature_differences

ROWS = ledger(STORE, BASE, INHERITED, HIDDEN)


def test_no_member_is_missing() -> None:
    assert [row for row in ROWS if row.verdict == "missing"] == []


def test_every_method_can_be_called_as_mlflow_calls_it() -> None:
    assert signature_differences(STORE, BASE) == []
