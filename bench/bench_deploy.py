"""What a local deployment costs, and what it survives, beside `mlflow models serve` in the same run.

    nox -s bench -- deploy [--rounds 30] [--seconds 60] [--json FILE]

Throughput: eight connections to one worker and to several, ours and MLflow's in turn, a second each; the ratios are the
medians over the rounds. Then `--seconds` of load through an update, and as long through SIGKILLs of workers and of the
supervisor in turn: what failed, and the longest time without an answer. Then twenty deployments created at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # its stubs are a package of their own
from deploy_load import Load, longest_gap
from report import publish

BODY = json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [[0.0, 1.0]]}}).encode()
KILL_EVERY = 10.0


def saved_models(folder: Path) -> tuple[str, str]:
    """Two linear models, as in MLflow's own quick start."""
    import mlflow.sklearn
    import pandas
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    data = pandas.DataFrame({"a": [0.0, 1.0, 2.5], "b": [1.0, -3.0, 0.25]})
    for sign in (1.0, -1.0):
        estimator = LinearRegression().fit(data, sign * (data["a"] - 2 * data["b"]))
        signature = infer_signature(data, estimator.predict(data))
        mlflow.sklearn.save_model(estimator, str(folder / f"m{sign:g}"), signature=signature)
    return str(folder / "m1"), str(folder / "m-1")


@contextmanager
def models_serve(model: str, workers: int) -> Iterator[str]:
    """The URL of `mlflow models serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    command = [str(bin_folder / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
    environ = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    command += ["-p", str(port), "-w", str(workers)]
    # In a session of its own, as our workers are: on a busy machine Linux shares the CPU out by session (autogroup).
    process = subprocess.Popen(
        command, env=environ, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/ping"))
        yield f"http://127.0.0.1:{port}"
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(url, timeout=5).close()
        return True
    return False


def until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise SystemExit(f"waited {seconds:g} s in vain")


def throughput(client: Any, model: str, rounds: int, workers: int) -> dict[str, Any]:
    """Requests in a second, and the medians of the ratios within each round, in which all four take their turn."""
    ours = {n: client.create_deployment(f"t{n}", model, config={"workers": n, "standby": 0}) for n in (1, workers)}
    rates: dict[str, list[float]] = {}
    with models_serve(model, 1) as one, models_serve(model, workers) as several:
        urls = {"ours, 1": ours[1]["url"], "theirs, 1": one, "ours, n": ours[workers]["url"], "theirs, n": several}
        for number in range(rounds + 1):
            for name in list(urls)[:: 1 if number % 2 else -1]:
                with Load(f"{urls[name]}/invocations", BODY, connections=8) as load:
                    time.sleep(1.0)
                assert not load.failures, load.failures[:3]
                if number:  # the first round warms them up
                    rates.setdefault(name, []).append(load.rate())
    for deployment in ours.values():
        client.delete_deployment(deployment["name"])

    def ratio(above: str, below: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[above], rates[below], strict=True)), 2)

    return {
        **{f"requests/s of {n}: median": round(statistics.median(r), 1) for n, r in rates.items()},
        "n": workers,
        "one worker, ours / mlflow models serve": ratio("ours, 1", "theirs, 1"),
        "n workers, ours / mlflow models serve -w n": ratio("ours, n", "theirs, n"),
        "n workers / one worker, ours": ratio("ours, n", "ours, 1"),
        "n workers / one worker, mlflow models serve": ratio("theirs, n", "theirs, 1"),
    }


def updating(client: Any, models: tuple[str, str], seconds: float) -> dict[str, Any]:
    """Load through an update in its middle."""
    about = client.create_deployment("u", models[0], config={"env_manager": "local"})
    url = f"{about['url']}/invocations"
    with Load(url, BODY, 4) as kept, Load(url, BODY, 2, keep_alive=False) as fresh:
        time.sleep(seconds / 2)
        began = time.monotonic()
        client.update_deployment("u", models[1])
        taken = time.monotonic() - began
        time.sleep(max(seconds / 2 - taken, 1.0))
    client.delete_deployment("u")
    return {
        "update: requests in all": len(kept.samples) + len(fresh.samples),
        "update: failed requests": len(kept.failures) + len(fresh.failures),
        "update: longest time without an answer, s": round(longest_gap(kept, fresh), 2),
        "update: took, s": round(taken, 1),
    }


def killing(client: Any, model: str, seconds: float) -> dict[str, Any]:
    """Load through SIGKILLs of the worker and of the supervisor in turn; and what is left after the deletion."""
    about = client.create_deployment("k", model, config={"env_manager": "local"})
    kills: list[tuple[str, float]] = []
    url = f"{about['url']}/invocations"
    with Load(url, BODY, 4) as kept, Load(url, BODY, 2, keep_alive=False) as fresh:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            about = until(lambda: _whole(client))
            name = ("worker", "supervisor")[len(kills) % 2]
            pid = about["workers"][0] if name == "worker" else about["supervisor_pid"]
            kills.append((name, time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            time.sleep(min(KILL_EVERY, max(end - time.monotonic(), 1.0)))
    samples = sorted(s.ended for s in [*kept.samples, *fresh.samples] if s.status == 200)
    recovery = {which: [next(t for t in samples if t > at) - at for n, at in kills if n == which] for which, _ in kills}
    client.delete_deployment("k")
    left = [p for p in psutil.process_iter() if str(about["folder"]) in " ".join(_command(p))]
    return {
        "kills: requests in all": len(kept.samples) + len(fresh.samples),
        "kills: failed requests": len(kept.failures) + len(fresh.failures),
        "kills": ", ".join(f"{len(times)} of a {which}" for which, times in recovery.items()),
        "kills: longest time to the next answer, s": {w: round(max(t), 2) for w, t in recovery.items()},
        "kills: longest time without an answer, s": round(longest_gap(kept, fresh), 2),
        "kills: processes left after the deletion": len(left),
    }


def _whole(client: Any) -> Any:
    about = client.get_deployment("k")
    alive = about["supervisor_pid"] and psutil.pid_exists(about["supervisor_pid"])
    return about if about["status"] == "ready" and about["standby"] and alive else None


def _command(process: Any) -> list[str]:
    with suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return list(process.cmdline())
    return []


def twenty(client: Any, model: str) -> dict[str, Any]:
    """Twenty deployments created at once."""
    names = [f"n{number}" for number in range(20)]
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        config = {"env_manager": "local", "standby": 0}
        made = list(pool.map(lambda name: client.create_deployment(name, model, config=config), names))
    taken = time.monotonic() - began
    pids = [pid for about in made for pid in (about["supervisor_pid"], *about["workers"])]
    answering = sum(_answers(f"{about['url']}/ping") for about in made)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(client.delete_deployment, names))
    return {
        "twenty at once: answering, addresses, processes": [answering, len({a["url"] for a in made}), len(set(pids))],
        "twenty at once: took, s": round(taken, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--without", default="", help="parts to leave out: throughput,update,kills,twenty")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    from mlflow.deployments import get_deploy_client

    left_out = options.without.split(",")
    report: dict[str, Any] = {"mlflow": version("mlflow"), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        models = saved_models(Path(folder))
        client = get_deploy_client(f"local:{folder}/state")
        if "throughput" not in left_out:
            report |= throughput(client, models[0], options.rounds, options.workers)
        if "update" not in left_out:
            report |= updating(client, models, options.seconds)
        if "kills" not in left_out:
            report |= killing(client, models[0], options.seconds)
        if "twenty" not in left_out:
            report |= twenty(client, models[0])
    publish(report, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
