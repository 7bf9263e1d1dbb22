"""Nothing fails through an update, little through SIGKILL, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from mlflow.exceptions import MlflowException
from talking import QUICK, ask, processes_of, until

from mlflow_local_deploy.deployment import LocalDeploymentClient
from mlflow_local_deploy.place import Place, try_lock
from mlflow_local_deploy.slots import slot_files


class Load:
    """Requests one after the other from some threads, half of them on connections that stay open."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self._url, self._threads = f"{url}/invocations", threads
        self._end = threading.Event()
        self.ended: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        self._pool = [threading.Thread(target=self._run, args=(n % 2 == 0,)) for n in range(self._threads)]
        for thread in self._pool:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._pool:
            thread.join()

    def _run(self, keep: bool) -> None:
        body = json.dumps({"dataframe_split": {"columns": ["what", "value"], "data": [["", 1.0]]}})
        headers = {"Content-Type": "application/json", **({} if keep else {"Connection": "close"})}
        with requests.Session() as session:
            while not self._end.is_set():
                try:
                    answer = session.post(self._url, data=body, headers=headers, timeout=60)
                    if answer.status_code != 200:
                        self.failures.append(f"{answer.status_code} {answer.text[:200]}")
                    self.ended.append(time.monotonic())
                except requests.RequestException as exc:
                    self.failures.append(repr(exc)[:300])

    def gap_after(self, moment: float) -> float:
        """Seconds from a moment to the next answer."""
        return until(lambda: [t for t in list(self.ended) if t > moment], "no answer came")[0] - moment


def kill(pid: int) -> float:
    moment = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return moment


@pytest.fixture
def standing_by(client: LocalDeploymentClient, talker: str) -> dict[str, Any]:
    """A deployment with one worker, and one that stands by."""
    return client.create_deployment("d", talker, config={"env_manager": "local"})


class TestUnderLoad:
    """One deployment, and what may happen to it."""

    def test_no_request_fails_in_an_update_nor_in_scaling(
        self, client: LocalDeploymentClient, standing_by: dict[str, Any], talker: str
    ) -> None:
        before = {*standing_by["workers"], *standing_by["standby"]}
        with Load(standing_by["url"]) as load:
            client.update_deployment("d", talker)
            after = client.scale_deployment("d", 2, standby=0)
            client.scale_deployment("d", 1)
            moment = time.monotonic()
            load.gap_after(moment)
        assert load.failures == []
        assert len(load.ended) > 20
        assert len(after["workers"]) == 2
        assert not before & {*after["workers"], *after["standby"]}, "an old worker still serves"

    def test_kills_of_worker_and_supervisor_are_survived_within_three_seconds(
        self, client: LocalDeploymentClient, standing_by: dict[str, Any], folder: Path
    ) -> None:
        with Load(standing_by["url"]) as load:
            moment = kill(standing_by["workers"][0])
            assert load.gap_after(moment) < 3.0
            about = until(lambda: _ready(client, restarts=1), "the worker was not replaced")
            failures = len(load.failures)
            assert failures <= 4, "more failed than what the worker had begun"
            moment = kill(about["supervisor_pid"])
            assert load.gap_after(moment) < 3.0
            again = until(lambda: _supervised(client, about["supervisor_pid"]), "nobody supervises", 3.0)
            assert len(load.failures) == failures, "a request failed because the supervisor was killed"
            # The new supervisor takes over the workers, and does for them what the old one did.
            moment = kill(again["workers"][0])
            assert load.gap_after(moment) < 3.0
            until(lambda: _ready(client, restarts=2), "the second worker was not replaced")
        client.delete_deployment("d")
        until(lambda: not processes_of(folder), "a process was left behind")

    def test_supervisor_and_worker_killed_together_come_back(
        self, client: LocalDeploymentClient, standing_by: dict[str, Any]
    ) -> None:
        os.kill(standing_by["supervisor_pid"], signal.SIGKILL)
        moment = kill(standing_by["workers"][0])
        answer = requests.get(f"{standing_by['url']}/ping", timeout=30)
        assert answer.status_code == 200
        assert time.monotonic() - moment < 3.0


def _ready(client: LocalDeploymentClient, restarts: int) -> dict[str, Any] | None:
    about = client.get_deployment("d")
    return about if about["status"] == "ready" and about["restarts"] >= restarts else None


def _supervised(client: LocalDeploymentClient, old: int) -> dict[str, Any] | None:
    about = client.get_deployment("d")
    new = about["supervisor_pid"]
    return about if new != old and psutil.pid_exists(new) and about["workers"] else None


def test_everything_that_was_killed_at_once_starts_again_at_the_same_address(
    client: LocalDeploymentClient, talker: str, folder: Path
) -> None:
    """As after a reboot: the files are there, no process is, and their ids may belong to somebody else."""
    about = client.create_deployment("d", talker, config=QUICK)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        until(lambda: not _kill_all(folder), "a killed process lives")
        for file in slot_files(Place(folder / "deployments" / "d").workers):
            _give_to(file, stranger.pid)
        assert client.predict("d", ask("", 2.0)).get_predictions().iloc[0, 0] == 2.0
        assert client.get_deployment("d")["url"] == about["url"]
        client.delete_deployment("d")
        assert stranger.poll() is None, "a process was killed that only had a worker's id"
    finally:
        stranger.kill()
        stranger.wait()


def test_the_address_stays_when_a_client_finds_no_supervisor(client: LocalDeploymentClient, talker: str) -> None:
    """The workers hold the socket: a client that looks before they have noticed leaves the succession to them."""
    about = client.create_deployment("d", talker, config=QUICK)
    (worker,) = about["workers"]
    os.kill(worker, signal.SIGSTOP)
    try:
        os.kill(about["supervisor_pid"], signal.SIGKILL)
        until(lambda: not _runs(about["supervisor_pid"]), "the supervisor lives")
        assert client.get_deployment("d")["url"] == about["url"]
    finally:
        os.kill(worker, signal.SIGCONT)
    assert client.predict("d", ask("", 1.0)).get_predictions().iloc[0, 0] == 1.0
    after = until(lambda: _supervised(client, about["supervisor_pid"]), "nobody supervises")
    assert (after["url"], after["workers"]) == (about["url"], [worker])


def test_kills_under_the_eyes_of_clients_leave_a_deployment_that_answers(
    client: LocalDeploymentClient, talker: str
) -> None:
    """Supervisor and worker are killed again and again while two threads keep looking for a supervisor to start."""
    about = client.create_deployment("d", talker, config=QUICK)
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            client.get_deployment("d")

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    try:
        for number in range(6):
            now = until(lambda: _with_supervisor(client), "nobody supervises")
            if number % 3 == 2:
                for pid in now["workers"]:
                    kill(pid)
            kill(now["supervisor_pid"])
            time.sleep(0.3 * (number % 2))
    finally:
        end.set()
        for thread in lookers:
            thread.join()
    until(lambda: client.get_deployment("d")["status"] == "ready", "it does not come back")
    assert client.get_deployment("d")["url"] == about["url"]
    assert client.predict("d", ask("", 1.0)).get_predictions().iloc[0, 0] == 1.0


def _with_supervisor(client: LocalDeploymentClient) -> dict[str, Any] | None:
    about = client.get_deployment("d")
    return about if about["supervisor_pid"] and _runs(about["supervisor_pid"]) else None


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and not _is_zombie(pid)


def test_workers_that_stand_still_are_ended_before_their_address_is_taken(
    client: LocalDeploymentClient, talker: str
) -> None:
    """They cannot take over from a supervisor that is gone: a client does, and they end since they hold the socket."""
    about = client.create_deployment("d", talker, config={**QUICK, "drain_seconds": 1, "hang_seconds": 5})
    os.kill(about["workers"][0], signal.SIGSTOP)
    until(lambda: psutil.Process(about["workers"][0]).status() == psutil.STATUS_STOPPED, "it was not stopped")
    os.kill(about["supervisor_pid"], signal.SIGKILL)
    time.sleep(5.5)  # longer than a worker may be silent and still count as one that takes over
    after = until(lambda: _with_others(client, about["workers"]), "the worker that stands still was not replaced")
    assert after["url"] == about["url"]
    assert client.predict("d", ask("", 1.0)).get_predictions().iloc[0, 0] == 1.0


def test_a_worker_that_was_stopped_as_it_took_over_does_not_keep_the_lock(
    client: LocalDeploymentClient, talker: str, folder: Path
) -> None:
    """What a worker does between having the lock and having started a supervisor is short, but may be interrupted."""
    about = client.create_deployment("d", talker, config={**QUICK, "drain_seconds": 1, "hang_seconds": 3})
    os.kill(about["workers"][0], signal.SIGSTOP)
    until(lambda: psutil.Process(about["workers"][0]).status() == psutil.STATUS_STOPPED, "it was not stopped")
    os.kill(about["supervisor_pid"], signal.SIGKILL)
    lock = until(lambda: try_lock(Place(folder / "deployments" / "d").supervisor_lock), "the lock is held")
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[lock])
    os.close(lock)
    try:
        until(lambda: client.get_deployment("d") and not _runs(about["workers"][0]), "the worker was not ended", 30)
    finally:
        holder.kill()
        holder.wait()
    after = until(lambda: _with_others(client, about["workers"]), "it does not come back")
    assert after["url"] == about["url"]


def _with_others(client: LocalDeploymentClient, old: list[int]) -> dict[str, Any] | None:
    about = client.get_deployment("d")
    return about if about["status"] == "ready" and about["workers"] and not set(old) & set(about["workers"]) else None


def _kill_all(folder: Path) -> list[psutil.Process]:
    """They start each other again: the workers are killed first, and whoever was faster next time."""
    found = processes_of(folder)
    for process in sorted(found, key=lambda p: "supervisor" in " ".join(p.cmdline())):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return found


def _give_to(file: Path, pid: int) -> None:
    from mlflow_local_deploy.slots import Slot

    slot = Slot(file)
    slot.page.pid = pid
    slot.close()


def test_what_a_killed_worker_had_started_ends_with_it(client: LocalDeploymentClient, talker: str) -> None:
    about = client.create_deployment("d", talker, config=QUICK)
    child = int(client.predict("d", ask("child")).get_predictions().iloc[0, 0])
    assert psutil.pid_exists(child)
    os.kill(about["workers"][0], signal.SIGKILL)
    until(lambda: not psutil.pid_exists(child) or _is_zombie(child), "the worker's child lives on", 20)


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_deployment_outlives_the_process_that_made_it(
    folder: Path, talker: str, client: LocalDeploymentClient
) -> None:
    code = (
        "import sys; from mlflow_local_deploy.deployment import LocalDeploymentClient as C;"
        f"C('local:{folder}').create_deployment('d', {talker!r}, config={QUICK!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert client.predict("d", ask("", 3.0)).get_predictions().iloc[0, 0] == 3.0


def test_a_worker_that_hangs_is_replaced(client: LocalDeploymentClient, talker: str) -> None:
    about = client.create_deployment("d", talker, config={**QUICK, "hang_seconds": 2})
    os.kill(about["workers"][0], signal.SIGSTOP)
    until(lambda: _ready(client, restarts=1), "the worker that hangs was not replaced")
    assert client.predict("d", ask("", 1.0)).get_predictions().iloc[0, 0] == 1.0


def test_an_update_that_fails_leaves_the_old_model_serving(
    client: LocalDeploymentClient, talker: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", talker, str(broken)], check=True)
    (broken / "python_model.pkl").write_bytes(b"no pickle")
    about = client.create_deployment("d", talker, config=QUICK)
    with Load(about["url"], threads=2) as load, pytest.raises(MlflowException, match="did not become ready") as raised:
        client.update_deployment("d", str(broken))
    assert "UnpicklingError" in raised.value.message
    assert "cloudpickle.load(" in raised.value.message, "the end of the worker's log is shown"
    assert load.failures == []
    after = client.get_deployment("d")
    assert (after["workers"], after["status"], after["model_uri"]) == (about["workers"], "ready", talker)
    assert [f.name.split("-")[0] for f in (Path(after["folder"]) / "revisions").iterdir()] == ["r1"]


def test_twenty_deployments_at_once_share_no_port_and_no_process(client: LocalDeploymentClient, folder: Path) -> None:
    """Routers instead of models: the same supervisor and the same sockets, without twenty times loading MLflow."""
    names = [f"e{n}" for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(client.create_endpoint, names))
    assert len({about["url"] for about in made}) == 20
    assert len({about["supervisor_pid"] for about in made}) == 20
    assert {requests.get(f"{about['url']}/v2/health/live", timeout=30).json()["name"] for about in made} == set(names)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(client.delete_endpoint, names))
    until(lambda: not processes_of(folder), "a process was left behind")


def test_one_name_created_by_many_at_once_is_created_once(client: LocalDeploymentClient) -> None:
    def create(_: int) -> str:
        try:
            return str(client.create_endpoint("e")["name"])
        except MlflowException as exc:
            return str(exc.error_code)

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(create, range(5))) == ["RESOURCE_ALREADY_EXISTS"] * 4 + ["e"]
