"""Kerberos against a real KDC."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from real_kdc import Kdc, NegotiatingServer

from mlflow_plugkit_testing.auth import send


@pytest.fixture
def negotiating(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NegotiatingServer]:
    with NegotiatingServer(kdc) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kerberos")
        monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'krb5cc'}")
        yield server


def test_a_ticket_lets_in(negotiating: NegotiatingServer, kdc: Kdc, tmp_path: Path) -> None:
    """Each request carries a token of its own with the first try, for servers refuse a replay."""
    kdc.kinit(tmp_path)
    for _ in range(3):
        mlflow.MlflowClient().search_experiments()
    assert negotiating.users == ["ada@TEST.LOCAL"] * 3
    assert negotiating.refused == 0


def test_a_refusal_is_answered_once_with_the_body(negotiating: NegotiatingServer, kdc: Kdc, tmp_path: Path) -> None:
    kdc.kinit(tmp_path)
    negotiating.refuse_next = 1
    assert send(negotiating, io.BytesIO(b"x" * 5000)).status_code == 200
    assert (negotiating.refused, len(negotiating.users)) == (1, 1)


def test_a_client_keytab_needs_no_kinit(
    negotiating: NegotiatingServer, kdc: Kdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_KERBEROS_KEYTAB", str(kdc.client_keytab))
    monkeypatch.setenv("MLFLOW_AUTH_KERBEROS_PRINCIPAL", "ada@TEST.LOCAL")
    mlflow.MlflowClient().search_experiments()
    assert negotiating.users == ["ada@TEST.LOCAL"]


def test_without_a_ticket_the_error_names_kinit(negotiating: NegotiatingServer) -> None:
    with pytest.raises(MlflowException, match="kinit"):
        mlflow.MlflowClient().search_experiments()
    assert negotiating.refused == 0
