"""The laws of the house hold in this repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from laws import LAWS, Law

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_law_holds(law: Law) -> None:
    violations = list(law(ROOT))
    assert not violations, f"{law.__doc__}\n" + "\n".join(violations)
