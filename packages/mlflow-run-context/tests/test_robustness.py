"""Nothing here can break or delay a training script: broken, huge, hanging, lying and missing things."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_run_context import commands, jobs
from mlflow_run_context.collector import Collector, Job
from mlflow_run_context.commands import CommandError, output, run
from mlflow_run_context.git import Status, changes, find_repository, head, signature
from mlflow_run_context.plugin import RunContext

Git = Callable[..., str]
Tags = Callable[[], dict[str, str]]
Command = Callable[[str, str], Path]
SHORT = 0.05
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(start)]


def timed(call: Callable[[], dict[str, str]]) -> tuple[float, dict[str, str]]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


@pytest.mark.parametrize("name", ["nvidia-smi", "git"])
def test_a_command_that_hangs_holds_up_the_first_run_by_the_deadline_and_no_later_one(
    name: str, git: Git, command: Command, tags: Tags, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mlflow_run_context")
    commit = git("rev-parse", "HEAD")
    tags()  # what is loaded once
    jobs.reset()
    command(name, "sleep 60 & sleep 60")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_DEADLINE", "0.3")
    first, found = timed(tags)
    second, again = timed(tags)
    assert 0.25 < first < 2
    assert second < 0.2
    assert found["ctx.git.commit"] == again["ctx.git.commit"] == commit
    assert len([line for line in lines(caplog, "") if "is not ready after" in line]) == 1
    commands._kill_all()


def test_a_command_that_takes_too_long_is_killed_with_its_children(command: Command, tmp_path: Path) -> None:
    command("slow", f"sleep 300 & echo $! > {tmp_path}/child; echo hello; wait")
    with pytest.raises(CommandError, match=r"took longer than 0\.5 s"):
        output(["slow"], limit=1000, timeout=0.5)
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split(")")[1].split()[0] == "Z":
            break
        threading.Event().wait(0.05)
    else:
        pytest.fail("the command's child is still running")
    assert not commands._running


def test_a_command_without_end_is_cut(command: Command) -> None:
    command("flood", "exec cat /dev/zero")
    assert len(output(["flood"], limit=200_000, timeout=20)) == 200_000
    with pytest.raises(CommandError, match="is not on the PATH"):
        output(["there-is-no-such-command"], limit=1, timeout=1)
    command("broken", "").write_bytes(b"\x7fELF broken")
    with pytest.raises(CommandError, match=r"cannot be started|failed with status"):
        output(["broken"], limit=1, timeout=5)


def test_commands_end_with_the_process(tmp_path: Path, command: Command) -> None:
    command("git", f"echo $$ > {tmp_path}/pid; exec sleep 300")
    (tmp_path / "project" / ".git").mkdir(parents=True)
    (tmp_path / "project" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    # Asked outside a run: MLflow's own git provider, which would wait for this git for ever, stays out of it.
    code = """
import os, pathlib, sys, time
from mlflow_run_context.plugin import RunContext
os.environ["MLFLOW_RUN_CONTEXT_DEADLINE"] = "0"
assert RunContext().tags()["ctx.git.branch"] == "main"
pid, end = pathlib.Path(sys.argv[1]), time.monotonic() + 30
while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < end:
    time.sleep(0.01)
"""
    child = [sys.executable, "-c", code, str(tmp_path / "pid")]
    subprocess.run(child, cwd=tmp_path / "project", check=True, timeout=60)
    pid, end = (tmp_path / "pid").read_text().strip(), time.monotonic() + 10
    while (state := _state(pid)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not state, f"the command lives on as {pid} ({state})"


def _state(pid: str) -> str:
    """What `ps` says of a process; "" where there is none, or only what its parent has not taken notice of yet."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False)
    return "" if shown.stdout.startswith("Z") else shown.stdout.strip()


@FUZZ
@given(
    head_text=st.one_of(
        st.binary(max_size=200), st.sampled_from([b"ref: ../../../etc/passwd", b"ref: refs/heads/../x", b""])
    ),
    config=st.binary(max_size=300),
    packed=st.binary(max_size=300),
    link=st.one_of(st.none(), st.binary(max_size=100), st.just(b"gitdir: /dev/zero"), st.just(b"gitdir: ../\x00")),
)
def test_a_repository_of_garbage_gives_valid_tags_or_none(
    head_text: bytes, config: bytes, packed: bytes, link: bytes | None, tmp_path: Path
) -> None:
    top = tmp_path / "garbage"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    if link is not None:
        (top / ".git").write_bytes(link)
    else:
        (top / ".git").mkdir()
        for name, content in (("HEAD", head_text), ("config", config), ("packed-refs", packed), ("index", packed)):
            (top / ".git" / name).write_bytes(content)
    repository = find_repository(top)
    if repository is None or repository.top != top:
        return
    found = head(repository, signature(repository))
    assert set(found) <= {"git.commit", "git.branch", "git.remote", "git.repository"}
    assert all(len(found["git.commit"]) in (40, 64) for _ in [0] if "git.commit" in found)


@pytest.mark.parametrize("broken", ["HEAD", "index", "objects", "config", "refs", "all"])
def test_a_broken_repository_costs_its_own_tags_only(
    broken: str, git: Git, tags: Tags, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mlflow_run_context")
    Path("train.py").write_text("print(2)\n")
    place = Path(".git") / broken
    if broken == "all":
        shutil.rmtree(".git")
        Path(".git").write_text("gitdir: nowhere")
    elif place.is_dir():
        shutil.rmtree(place)
    else:
        place.write_bytes(b"\xff\x00[broken")
    found = tags()
    assert found["ctx.python.version"]
    assert "ctx.host.name" in found
    assert len(lines(caplog, "git changes gives no tags")) <= 1


def test_a_huge_repository_costs_no_more_than_the_deadline(
    git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in range(20):
        place = Path(f"data{folder}")
        place.mkdir()
        for number in range(1000):
            (place / f"{number}.txt").touch()
    tags()
    jobs.reset()
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_DEADLINE", str(SHORT))
    spent, found = timed(tags)
    assert spent < SHORT + 0.5
    assert found["ctx.git.commit"]
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_DEADLINE", "20")
    jobs.reset()
    assert tags()["ctx.git.untracked"] == "20"


def test_a_diff_of_many_megabytes_is_digested_without_being_kept(git: Git, tags: Tags) -> None:
    Path("big.txt").write_text("a\n" * 2_000_000)
    git("add", "big.txt")
    assert tags()["ctx.git.diff_digest"].startswith("sha256:")


def test_a_deleted_working_directory(tags: Tags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = tags()
    assert found["ctx.host.name"]
    assert "ctx.git.commit" not in found


def test_no_home_no_path_no_user(git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "PATH", "USER", "LOGNAME", "LANG", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_RUN_TAGS", "who={user:-nobody}")
    found = tags()
    assert len(found["ctx.git.commit"]) == 40
    assert found["who"]


def test_an_environment_of_ten_megabytes(
    git: Git, command: Command, tags: Tags, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("nvidia-smi", "echo 'NVIDIA H100, 550.54.15, 81559'")
    for number in range(100):
        monkeypatch.setenv(f"BULK_{number}", "x" * 100_000)
    monkeypatch.setenv("SLURM_JOB_ID", "y" * 100_000)
    spent, found = timed(tags)
    assert spent < 5
    assert found["ctx.gpu.count"] == "1"
    assert found["ctx.git.dirty"] == "false"
    assert found["ctx.slurm.job_id"].endswith("y ... [truncated]")
    assert len(found["ctx.slurm.job_id"]) == 5000


def test_names_that_are_not_ascii_or_not_unicode(git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    git("checkout", "-q", "-b", "zweig-ü-漢")
    Path("größe.txt").touch()
    Path(os.fsdecode(b"bad-\xff")).touch()
    monkeypatch.setenv("SLURM_JOB_NAME", os.fsdecode(b"n\xffme\x00\x1b[31m".replace(b"\x00", b"")))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    found = tags()
    assert found["ctx.git.branch"] == "zweig-ü-漢"
    assert found["ctx.git.untracked"] == "2"
    assert all(value.encode() and value.isprintable() for value in found.values())


@pytest.mark.parametrize("place", [".git/HEAD", ".git/index", ".git/config", "uv.lock", "requirements.txt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "closed"])
def test_a_file_that_is_none_neither_hangs_nor_raises(
    place: str, kind: str, git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_DEADLINE", "1")
    path = Path(place)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.touch(0)
    spent, found = timed(tags)
    assert spent < 5
    assert found["ctx.python.version"]
    assert f"ctx.lock.{place}" not in found or kind == "closed"


@pytest.mark.parametrize(
    "source", ["machine.host", "machine.cpu", "container.container", "git.changes", "lockfiles.lock_files"]
)
def test_a_source_that_raises_is_one_debug_line(
    source: str, git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> dict[str, str]:
        raise OSError("Transport endpoint is not connected")

    caplog.set_level(logging.DEBUG, "mlflow_run_context")
    monkeypatch.setattr(f"mlflow_run_context.{source}", fail)
    assert tags()["ctx.python.version"] == tags()["ctx.python.version"]
    assert [r.levelname for r in caplog.records if "Transport endpoint" in r.getMessage()] in (["DEBUG"], ["DEBUG"] * 2)
    assert not [r for r in caplog.records if r.levelno > logging.DEBUG]


def test_what_misses_the_deadline_comes_with_a_later_run() -> None:
    collector, release = Collector(), threading.Event()

    def ask() -> dict[str, str]:
        release.wait(30)
        return {"a": "1"}

    jobs = [Job("slow", (), ask)]
    assert collector.collect(jobs, SHORT) == {}
    assert collector.collect(jobs, 30) == {}  # it was waited for
    release.set()
    assert collector.collect(jobs, 30, patient=True) == {"slow": {"a": "1"}}
    assert collector.collect(jobs, 0) == {"slow": {"a": "1"}}


def test_a_source_is_asked_once_by_many_threads_and_forgotten_when_there_are_too_many() -> None:
    collector, asked = Collector(), []
    jobs = [Job("one", (), lambda: {"n": str(len(asked) or asked.append(1) or 1)})]
    threads = [threading.Thread(target=collector.collect, args=(jobs, 10)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert asked == [1]
    for number in range(200):
        collector.collect([Job("many", number, dict)], 10)
    assert len(collector._entries) <= 64


def test_an_interpreter_without_threads_left_goes_without(monkeypatch: pytest.MonkeyPatch, tags: Tags) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert tags()["ctx.python.version"]


@FUZZ
@given(st.text(max_size=100), st.text(max_size=200))
def test_any_text_in_the_options_is_survived(sources: str, tags_text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", f"python,{sources}")
            patch.setenv("MLFLOW_RUN_TAGS", tags_text)
        except (ValueError, UnicodeEncodeError):
            return
        found = RunContext().tags()
        assert all(isinstance(value, str) and value.encode() for value in found.values())


@FUZZ
@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_status_output_is_read(pieces: list[bytes]) -> None:
    status = Status()
    for piece in pieces:
        assert status.take(piece)
    assert status.found()["git.dirty"] in ("true", "false")


def test_git_that_says_something_else(git: Git, command: Command, tags: Tags) -> None:
    commit = git("rev-parse", "HEAD")
    command("git", "head -c 3000000 /dev/urandom")
    found = tags()
    assert found["ctx.git.commit"] == commit
    repository = find_repository(Path.cwd())
    assert repository is not None
    assert set(changes(repository)) <= {"git.dirty", "git.untracked", "git.diff_digest", "git.commit", "git.branch"}


def test_the_commands_environment_is_small(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "zebra-9")
    command("show", "env")
    text = output(["show"], limit=100_000, timeout=10).decode()
    assert "zebra-9" not in text
    assert "GIT_OPTIONAL_LOCKS=0" in text


def test_pieces_are_handed_on_until_enough(command: Command) -> None:
    command("many", "i=0; while [ $i -lt 1000 ]; do echo 0123456789; i=$((i+1)); done")
    pieces: list[bytes] = []
    assert run(["many"], lambda piece: pieces.append(piece) is None, timeout=20)
    assert len(b"".join(pieces)) == 11_000
    assert not run(["many"], lambda piece: False, timeout=20)
