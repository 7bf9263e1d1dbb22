"""How jobs end on a real cluster without accounting, and what the run then shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from slurm_cluster import Cluster, until

from mlflow_slurm_backend import attach
from mlflow_slurm_backend.states import has_ended, job_state

Submit = Callable[..., Any]
GREEDY = "x = bytearray(300_000_000); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(60)"


def run_of(submitted: Any) -> Any:
    return mlflow.get_run(submitted.run_id)


def test_a_job_leaves_tags_metrics_and_output(
    slurm: Cluster, submit: Submit, capfd: pytest.CaptureFixture[str]
) -> None:
    """Id, state, nodes, exit code, time and output of a job that succeeds; the output is also shown to the caller."""
    submitted = submit("echo to stdout; echo to stderr >&2; sleep 1; printf 'last line'")
    assert submitted.wait() is True
    run = run_of(submitted)
    assert run.info.status == "FINISHED"
    assert run.data.tags["slurm.job_id"] == submitted.job_id
    assert {run.data.tags[f"slurm.{name}"] for name in ("state", "nodes", "exit_code")} == {
        "COMPLETED",
        slurm.main,
        "0:0",
    }
    assert 1 <= run.data.metrics["slurm.elapsed_seconds"] < 60
    shown = capfd.readouterr()
    assert "to stdout" in shown.out
    assert shown.out.endswith("last line")
    assert "to stderr" in shown.err
    for name, text in (("stdout.log", "to stdout\nlast line"), ("stderr.log", "to stderr\n")):
        assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/slurm/{name}") == text


def test_a_failure_shows_its_exit_code(slurm: Cluster, submit: Submit) -> None:
    """Exit code 3 is 3:0 in Slurm's notation, and the run is FAILED."""
    submitted = submit("exit 3")
    assert submitted.wait() is False
    tags = run_of(submitted).data.tags
    assert (run_of(submitted).info.status, tags["slurm.state"], tags["slurm.exit_code"]) == ("FAILED", "FAILED", "3:0")


def test_a_cancelled_job_is_killed(slurm: Cluster, submit: Submit) -> None:
    """cancel() ends the job, waits for that, and the run is KILLED, whatever the job's own end wrote."""
    submitted = submit("sleep 300")
    until(lambda: submitted.get_status() == "RUNNING", what="the job runs")
    assert run_of(submitted).data.tags["slurm.state"] in ("PENDING", "RUNNING")
    submitted.cancel()
    assert (run_of(submitted).info.status, submitted.get_status()) == ("KILLED", "KILLED")
    assert run_of(submitted).data.tags["slurm.state"] == "CANCELLED"
    assert submitted.wait() is False
    assert submitted.job_id not in slurm.run("squeue", "-h", "-o", "%A").stdout.split()


def test_a_job_cancelled_by_somebody_else_is_killed(slurm: Cluster, submit: Submit) -> None:
    """scancel from a shell, while the job still waits for its turn."""
    submitted = submit("true", extra_flags=["--begin=now+1hour"])
    slurm.run("scancel", submitted.job_id)
    assert submitted.wait() is False
    assert (run_of(submitted).info.status, run_of(submitted).data.tags["slurm.state"]) == ("KILLED", "CANCELLED")
    assert not list(submitted.job.folder.rglob("credentials")), "the credentials of a job that never ran were left"


def test_a_job_out_of_memory_fails(slurm: Cluster, submit: Submit) -> None:
    """The kernel ends it: Slurm says OUT_OF_MEMORY, and the run is FAILED."""
    if not slurm.cgroups:
        pytest.skip("Slurm can constrain memory only as root, with cgroups of version 1")
    submitted = submit(f'exec {sys.executable} -c "{GREEDY}"', mem=64)
    assert submitted.wait() is False
    assert run_of(submitted).info.status == "FAILED"
    assert run_of(submitted).data.tags["slurm.state"] == "OUT_OF_MEMORY"


def test_a_refused_submission_says_why(slurm: Cluster, submit: Submit, store: str) -> None:
    """sbatch's own message is in the error, the run is FAILED, and no credentials are left behind."""
    with pytest.raises(MlflowException, match=r"invalid partition specified: nope; .*sinfo lists") as caught:
        submit(partition="nope")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert [r.info.status for r in mlflow.MlflowClient().search_runs(["0"])] == ["FAILED"]
    assert not list(Path.cwd().rglob("credentials"))


def test_a_dependency_is_kept(slurm: Cluster, submit: Submit, tmp_path: Path) -> None:
    """afterok takes runs and Slurm jobs; where one fails, the job is cancelled instead of waiting for ever."""
    first = submit(f"sleep 2; touch {tmp_path}/first")
    good = submit(f"test -e {tmp_path}/first", afterok=[first.run_id, first.job_id])
    bad = submit("exit 1")
    never = submit(f"touch {tmp_path}/never", afterok=[bad.run_id])
    assert good.wait() is True
    assert never.wait() is False
    assert run_of(never).info.status == "KILLED"
    assert not (tmp_path / "never").exists()
    with pytest.raises(MlflowException, match="not submitted to Slurm"):
        submit(afterok=[mlflow.MlflowClient().create_run("0").info.run_id])


def test_an_array_has_a_child_run_for_each_point(slurm: Cluster, submit: Submit, tmp_path: Path) -> None:
    """Parameters, states and output of each point are in its own run, nested under the parent."""
    shell = f'printf "%s\\n" "$@" > {tmp_path}/seen-$SLURM_ARRAY_TASK_ID; echo task; [ "$SLURM_ARRAY_TASK_ID" != 2 ]'
    submitted = submit(shell, array={"a": ["x y", "$(touch pwned)"], "b": [1, 2]}, array_limit=3)
    assert submitted.wait() is False
    children = mlflow.MlflowClient().search_runs(["0"], f"tags.`mlflow.parentRunId` = '{submitted.run_id}'")
    by_task = {child.data.tags["slurm.job_id"]: child for child in children}
    assert sorted(by_task) == [f"{submitted.job_id}_{n}" for n in range(4)]
    points = [("x y", "1"), ("x y", "2"), ("$(touch pwned)", "1"), ("$(touch pwned)", "2")]
    for n, (a, b) in enumerate(points):
        child, arguments = by_task[f"{submitted.job_id}_{n}"], (tmp_path / f"seen-{n}").read_text().splitlines()
        assert {f"a={a}", f"b={b}", child.info.run_id} <= set(arguments)
        assert child.info.status == ("FAILED" if n == 2 else "FINISHED")
        assert mlflow.artifacts.load_text(f"{child.info.artifact_uri}/slurm/stdout.log") == "task\n"
        assert child.data.params["b"] == b
    parent = run_of(submitted)
    assert (parent.info.status, parent.data.tags["slurm.state"]) == ("FAILED", "3 COMPLETED, 1 FAILED")
    assert not list(tmp_path.rglob("pwned"))


def test_an_array_is_cancelled_as_a_whole(slurm: Cluster, submit: Submit) -> None:
    """cancel() ends what runs and what waits; parent and children are KILLED."""
    submitted = submit("sleep 300", array={"a": [1, 2, 3]}, array_limit=1)
    until(lambda: submitted.get_status() == "RUNNING", what="the array runs")
    submitted.cancel()
    runs = mlflow.MlflowClient().search_runs(["0"])
    assert [run.info.status for run in runs] == ["KILLED"] * 4


def test_preemption_queues_again_or_kills(slurm: Cluster, submit: Submit, tmp_path: Path) -> None:
    """A more urgent job takes the node: with `requeue` the job starts again, without it the run is KILLED."""
    shell = f"echo attempt >> {tmp_path}/attempts; [ $(wc -l < {tmp_path}/attempts) -ge 2 ] || sleep 300"
    again = submit(shell, partition="frail", cpus_per_task=1, requeue=True)
    gone = submit("sleep 300", partition="frail", cpus_per_task=1)
    until(lambda: (again.get_status(), gone.get_status()) == ("RUNNING", "RUNNING"), what="both run")
    urgent = submit("true", partition="urgent", cpus_per_task=2)
    assert urgent.wait() is True
    assert gone.wait() is False
    assert (run_of(gone).info.status, run_of(gone).data.tags["slurm.state"]) == ("KILLED", "PREEMPTED")
    until(lambda: restarts(slurm, again.job_id) == 1, 30, "the job is queued again")
    start_now(slurm, again.job_id)
    assert again.wait() is True
    assert run_of(again).info.status == "FINISHED"


def restarts(slurm: Cluster, job_id: str) -> int:
    return int(re.findall(r"Restarts=(\d+)", slurm.run("scontrol", "show", "job", job_id).stdout)[0])


def start_now(slurm: Cluster, job_id: str) -> None:
    """Slurm lets a job wait for two minutes after it was queued again."""
    until(lambda: "JobState=PENDING" in slurm.run("scontrol", "show", "job", job_id).stdout, what="the job is pending")
    slurm.run("scontrol", "update", f"jobid={job_id}", "starttime=now")


def test_a_lost_submitter_can_be_replaced(slurm: Cluster, submit: Submit, store: str, tmp_path: Path) -> None:
    """Another process attaches by run id or by job id, and records what this one would have recorded."""
    code = "import json, sys, mlflow; s = mlflow.projects.run(sys.argv[1], backend='slurm', synchronous=False,"
    code += " backend_config={'python': sys.argv[2]}); print(json.dumps([s.run_id, s.job_id])); import os; os._exit(0)"
    python = tmp_path / "fake"
    python.write_text(f"#!/bin/bash\necho out; until [ -e {tmp_path}/go ]; do sleep 0.1; done\n")
    python.chmod(0o755)
    lost = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "project"), str(python)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    run_id, job_id = json.loads(lost.stdout.strip().splitlines()[-1])
    by_job = attach(job_id, stream=False)
    assert (by_job.run_id, by_job.job_id) == (run_id, job_id)
    (tmp_path / "go").touch()
    assert by_job.wait() is True
    run = mlflow.get_run(run_id)
    assert (run.info.status, run.data.tags["slurm.state"]) == ("FINISHED", "COMPLETED")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/slurm/stdout.log") == "out\n"
    assert attach(run_id).wait() is True


def test_attaching_finds_a_job_whose_id_was_never_noted(slurm: Cluster, submit: Submit) -> None:
    """The submitter ended between sbatch and the tag: the job's name, noted before, leads to it."""
    submitted = submit("true")
    submitted.wait()
    mlflow.MlflowClient().delete_tag(submitted.run_id, "slurm.job_id")
    mlflow.MlflowClient().set_tag(submitted.run_id, "slurm.state", "PENDING")
    again = attach(submitted.run_id)
    assert again.job_id == submitted.job_id
    assert again.wait() is True
    with pytest.raises(MlflowException, match="not submitted by this backend"):
        attach(mlflow.MlflowClient().create_run("0").info.run_id)
    with pytest.raises(MlflowException, match="No run has the tag"):
        attach("99999")


@pytest.mark.parametrize("container", [None, {"runtime": "apptainer", "image": "py.sif"}])
def test_no_secret_is_shown(
    slurm: Cluster, submit: Submit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, container: dict[str, str] | None
) -> None:
    """The job has the credentials; no command line, Slurm's record, script, tag or log shows them."""
    secret = "s3cr3t-Zq81"
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SITE_LICENCE", "DB_PASSWORD"):
        monkeypatch.setenv(name, secret)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "apptainer"
    fake.write_text('#!/bin/bash\nwhile [ "$1" != py.sif ]; do shift; done; shift; exec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{slurm.environment['PATH']}")
    shell = f'echo "$AWS_SECRET_ACCESS_KEY $SITE_LICENCE $DB_PASSWORD" > {tmp_path}/seen.part; '
    shell += f"mv {tmp_path}/seen.part {tmp_path}/seen; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    submitted = submit(shell, environment=["SITE_LICENCE"], container=container)
    until((tmp_path / "seen").exists, what="the job runs")
    assert (tmp_path / "seen").read_text().split() == [secret] * 3
    assert not list(submitted.job.folder.rglob("credentials")), "the credentials outlive their reading"
    shown = slurm.run("scontrol", "show", "job", "-d", submitted.job_id).stdout
    shown += slurm.run("scontrol", "write", "batch_script", submitted.job_id, "-").stdout
    shown += "".join(content(file).decode(errors="replace") for file in Path("/proc").glob("[0-9]*/cmdline"))
    (tmp_path / "go").touch()
    assert submitted.wait() is True
    data = run_of(submitted).data
    logs = [p for p in slurm.folder.glob("*.log") if p.is_file()] + list(submitted.job.folder.rglob("*.log"))
    written = "".join(
        p.read_text(errors="replace") for p in [*logs, submitted.job.script, submitted.job.folder / "job.json"]
    )
    assert secret not in f"{shown}{data.tags}{data.params}{written}"
    state = [p for p in slurm.folder.rglob("*") if secret.encode() in content(p)]
    assert not state, f"Slurm's own files hold the secret: {state}"


def content(path: Path) -> bytes:
    """What is in a file; nothing where it is none, or has just gone."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def test_files_with_credentials_are_private(slurm: Cluster, submit: Submit) -> None:
    """While the job waits, its folder has mode 0700 and the files in it 0600."""
    submitted = submit(extra_flags=["--hold"])
    folder = submitted.job.folder
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {0o600})
    assert (folder / "tasks" / "0" / "credentials").exists()
    submitted.cancel()


def test_a_full_disk_is_explained(
    slurm: Cluster, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space for the job folder: RESOURCE_EXHAUSTED, the run is FAILED and nothing was submitted."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        (small / "filler").write_bytes(b"x" * 40960)
        shell = f"head -c 100000 /dev/zero >> {small}/more; echo unwritable; exit 0"
        inside = submit(shell, folder=str(small / "jobs"))
        assert inside.wait() is True, "a disk that fills up under the job changed its result"
        assert run_of(inside).info.status == "FINISHED"
        with pytest.raises(MlflowException, match="No space left") as caught:
            submit(folder=str(small / "jobs"))
        assert caught.value.error_code == "RESOURCE_EXHAUSTED"
        assert {r.info.status for r in mlflow.MlflowClient().search_runs(["0"])} == {"FINISHED", "FAILED"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_every_state_that_slurm_knows_has_a_status() -> None:
    """The table knows all of squeue's states, and words with an addition."""
    for text, status, ended in (
        ("CANCELLED by 1000", "KILLED", True),
        ("CANCELLED+", "KILLED", True),
        ("OOM", "FAILED", True),
        ("RUNNING,COMPLETING", "RUNNING", False),
        ("COMPLETED,COMPLETING", "RUNNING", False),
        ("PENDING,REQUEUED", "SCHEDULED", False),
        ("A_NEWER_STATE", "RUNNING", False),
    ):
        state = job_state(text)
        assert (state.status, has_ended(state)) == (status, ended), text


def test_many_threads_wait(slurm: Cluster, submit: Submit) -> None:
    """wait() may be called from several threads, and after the end."""
    submitted = submit("sleep 1")
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(submitted.wait())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [*results, submitted.wait()] == [True] * 4
