"""Few downloads at once near the service, many far from it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_s3_artifacts.gate import FAR_SECONDS, FEW, Gate


@pytest.mark.parametrize(("seconds", "most"), [(0.0, FEW), (FAR_SECONDS * 2, 40)], ids=["near", "far"])
def test_the_distance_decides_how_many_pass_at_once(seconds, most):
    gate, lock = Gate(40), threading.Lock()
    within, seen = 0, []

    def request(number):
        nonlocal within
        with gate.passing():
            with lock:
                within += 1
                seen.append(within)
            time.sleep(seconds if number else 0.0005 + seconds)
            with lock:
                within -= 1

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(request, range(400)))
    assert max(seen) <= most
    assert seconds == 0 or max(seen) > FEW


def test_a_place_is_given_back_after_an_error():
    gate = Gate(40)
    for _ in range(3 * FEW):
        with pytest.raises(KeyError), gate.passing():
            raise KeyError
    with gate.passing():
        pass
