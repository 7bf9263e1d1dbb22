"""The doctor names each seeded fault, says how to mend it, shows no secret and connects to nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import faulty
import pytest
from seeds import Seeds, environment, run_json

from mlflow_plugkit.doctor.rules import RULES

SECRETS = ("URISECRET", "TOKENSECRET", "NETRCSECRET", "HEADERSECRET", "QUERYSECRET")


@dataclass
class Listener:
    """A loopback socket that counts who comes."""

    socket: socket.socket
    visits: list[Any] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def accept(self) -> None:
        while True:
            try:
                connection, address = self.socket.accept()
            except OSError:
                return
            self.visits.append(address)
            connection.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = Listener(server)
        thread = threading.Thread(target=listening.accept, daemon=True)
        thread.start()
        yield listening
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.fixture(scope="module")
def faulty_run(
    tmp_path_factory: pytest.TempPathFactory, listener: Listener
) -> tuple[dict[str, Any], CompletedProcess[str]]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("faulty")
    seeds = Seeds(folder)
    faulty.seed_loading(seeds, listener.port)
    faulty.seed_contracts(seeds)
    faulty.seed_names(seeds)
    faulty.seed_metadata(seeds)
    (home / ".netrc").write_text("machine 127.0.0.1 login me password NETRCSECRET\n")
    (home / ".netrc").chmod(0o600)
    env = environment(
        home,
        PYTHONPATH=str(folder),
        MLFLOW_TRACKING_URI=f"http://me:URISECRET@127.0.0.1:{listener.port}",
        MLFLOW_REGISTRY_URI="seedfiel://host/path",
        _MLFLOW_SERVER_ARTIFACT_ROOT="unheardof://host?access_key=QUERYSECRET",
        MLFLOW_TRACKING_TOKEN="TOKENSECRET",
    )
    return run_json(["doctor", "--timeout", "6", "--max-import-ms", "300"], env)


def test_every_seeded_fault_is_named_and_nothing_else(faulty_run) -> None:
    """The findings are exactly those that were seeded: no fault is missed, and none is invented."""
    report, _ = faulty_run
    found = {(f["id"], f["subject"]) for f in report["findings"] if f["id"] != "slow-import"}
    assert found == faulty.expected()


def test_a_slow_plugin_is_named_with_its_cost(faulty_run) -> None:
    report, _ = faulty_run
    slow = [f for f in report["findings"] if f["id"] == "slow-import" and f["subject"] == "seed-slow"]
    assert len(slow) == 1
    assert int(slow[0]["what"].split()[2]) >= 600


def test_every_finding_says_what_and_how_to_mend_it(faulty_run) -> None:
    report, _ = faulty_run
    for found in report["findings"]:
        assert found["id"] in RULES
        assert found["severity"] in ("error", "warning")
        assert found["what"].endswith(".")
        assert len(found["remedy"].split()) >= 4


def test_errors_make_the_exit_status_one(faulty_run) -> None:
    report, done = faulty_run
    assert any(f["severity"] == "error" for f in report["findings"])
    assert done.returncode == 1, done.stderr


def test_no_secret_is_printed(faulty_run) -> None:
    """Passwords in URIs, tokens, header values and netrc entries stay out of both outputs, and of plugins' messages."""
    _, done = faulty_run
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr
    assert "refused: ***" in done.stdout
    assert "http://me:***@127.0.0.1" in done.stdout


def test_nothing_is_connected_to(faulty_run, listener: Listener) -> None:
    """Neither the configured tracking server nor the address that two seeded plugins call sees a connection."""
    assert listener.visits == []


def details(faulty_run, rule: str, subject: str) -> str:
    report, _ = faulty_run
    return next(f["what"] for f in report["findings"] if f["id"] == rule and subject in f["subject"])


def test_the_nearest_scheme_is_named(faulty_run) -> None:
    assert "'seedfile'" in details(faulty_run, "uri-scheme-unknown", "MLFLOW_REGISTRY_URI")


def test_the_winner_of_a_claim_is_the_one_that_mlflow_uses(faulty_run) -> None:
    """Of two plugins with one scheme, MLflow keeps the last that importlib.metadata discovers."""
    what = details(faulty_run, "name-claimed-twice", "seedtwice")
    assert what.startswith(("seed-twice-a and seed-twice-b", "seed-twice-b and seed-twice-a"))
    last = what.split(" claim")[0].split(" and ")[1]
    assert f"here {last} (seed_twice_{last[-1]}:Repository) is used" in what


def test_a_finding_says_whether_import_mlflow_breaks(faulty_run) -> None:
    assert "breaks `import mlflow`" in details(faulty_run, "entry-point-raises", "seed-raises")


def test_both_unsatisfied_requirements_are_named_and_no_extra_is_asked_for(faulty_run) -> None:
    report, _ = faulty_run
    whats = [f["what"] for f in report["findings"] if f["id"] == "requirement-unsatisfied"]
    assert len(whats) == 2
    assert any("no-such-distribution" in w for w in whats)
    assert any("packaging<1" in w for w in whats)


def test_the_report_counts_what_was_checked(faulty_run) -> None:
    report, _ = faulty_run
    assert report["schema"] == 1
    assert report["checked"]["plugins"] >= 27
    assert report["checked"]["uris"] == 3
    assert report["checked"]["rules"] == len(RULES)


def test_a_clean_environment_has_no_findings(tmp_path: Path) -> None:
    """MLflow's own two distributions list the same entry points, and are no finding; good plugins are none, either."""
    report, done = run_json(["doctor"], environment(tmp_path, MLFLOW_TRACKING_URI="sqlite:///mlflow.db"))
    assert report["findings"] == []
    assert done.returncode == 0
