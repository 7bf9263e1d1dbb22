"""The backend configuration, the job script and the readers of Slurm's output: without a cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit.errors import ErrorRow
from mlflow_slurm_backend import script
from mlflow_slurm_backend.backend import absolute
from mlflow_slurm_backend.errors import SLURM_ERRORS, SlurmCommandError
from mlflow_slurm_backend.ladder import job_ids, read_duration, read_exit_file, read_memory, read_sacct, read_scontrol
from mlflow_slurm_backend.settings import Container, JobConfig, keys_table
from mlflow_slurm_backend.states import STATES, job_state

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def config(**given: Any) -> JobConfig:
    return JobConfig.from_backend_config(given)


def test_every_key_becomes_one_argument() -> None:
    """Keys of each kind, with MLflow's own beside them; `-` is read as `_`."""
    given = {
        "partition": "gpu,long", "account": "ml", "qos": "high", "time": "1-12:00:00", "nodes": "2-4", "ntasks": 8,
        "cpus-per-task": 4, "mem": "16G", "gres": "gpu:a100:2", "constraint": "[rack1|rack2]&ib", "requeue": True,
        "signal": "B:USR1@90", "extra_flags": ["--exclusive", "--mail-type=END,FAIL"],
        "array": {"a": [1, 2], "b": ["x"]}, "array_limit": 1,
        "ENV_MANAGER": "local", "SYNCHRONOUS": False, "DOCKER_ARGS": None,
    }  # fmt: skip
    assert JobConfig.from_backend_config(given).sbatch_flags() == [
        "--partition=gpu,long", "--account=ml", "--qos=high", "--time=1-12:00:00", "--nodes=2-4", "--ntasks=8",
        "--cpus-per-task=4", "--mem=16G", "--gres=gpu:a100:2", "--constraint=[rack1|rack2]&ib", "--requeue",
        "--signal=B:USR1@90", "--array=0-1%1", "--exclusive", "--mail-type=END,FAIL",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"partitoin": "x"}, "'partition'"),
        ({"container": {"image": "x", "bind": ["/a"]}}, "'container.binds'"),
        ({"container": {"runtime": "docker", "image": "x"}}, "apptainer"),
        ({"container": {}}, "container.image"),
        ({"time": "soon"}, "write it like 30 (minutes), 2:00:00"),
        ({"time": True}, "time"),
        ({"nodes": "2;reboot"}, "write it like 2 or 2-4"),
        ({"partition": "a\n#SBATCH --uid=0"}, "partition"),
        ({"gres": "gpu:1\nx"}, "gres"),
        ({"requeue": "yes"}, "requeue"),
        ({"modules": "cuda"}, "modules"),
        ({"modules": ["--help"]}, "modules"),
        ({"afterok": ["$(id)"]}, "afterok"),
        ({"array": {"a": []}}, "array"),
        ({"array_limit": 2}, "array"),
        ({"signal": "USR1@-5"}, "signal"),
        ({"extra_flags": ["--wrap=id"]}, "'--wrap'"),
        ({"extra_flags": ["--wra=id"]}, "'--wra'"),
        ({"extra_flags": ["--export=ALL,TOKEN=x"]}, "'--export'"),
        ({"extra_flags": ["--uid=0"]}, "'--uid'"),
        ({"extra_flags": ["--exclusiv"]}, "'--exclusive'"),
        ({"extra_flags": ["--job-name=x"]}, "'--job-name'"),
        ({"extra_flags": ["--nice=1\n--uid=0"]}, "form"),
        ({"extra_flags": ["-w", "node1"]}, "form"),
        ({"extra_flags": ["script.sh"]}, "form"),
        ({"container": {"image": "x", "options": ["--env=TOKEN=x"]}}, "'--env'"),
    ],
)
def test_wrong_configurations_are_refused(given: dict[str, Any], word: str) -> None:
    """Unknown keys name the nearest known one; values and flags that could smuggle something in are refused."""
    with pytest.raises(MlflowException) as caught:
        JobConfig.from_backend_config(given)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert word in str(caught.value)


def test_a_site_gives_defaults(tmp_path: Path) -> None:
    """The file of MLFLOW_SLURM_CONFIG lies under the run's configuration."""
    file = tmp_path / "site.json"
    file.write_text('{"partition": "cpu", "account": "ml"}')
    merged = JobConfig.from_backend_config({"partition": "gpu"}, str(file))
    assert (merged.partition, merged.account) == ("gpu", "ml")
    file.write_text("[]")
    with pytest.raises(MlflowException, match="no JSON object"):
        JobConfig.from_backend_config({}, str(file))


def test_a_grid_is_a_product_or_a_list() -> None:
    """An object of lists is their product; a list of objects is itself."""
    assert list(config(array={"a": [1, 2], "b": ["x", "y"]}).points()) == [
        {"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"}
    ]  # fmt: skip
    assert list(config(array=[{"a": 0.5}, {"a": 1, "b": True}]).points()) == [{"a": "0.5"}, {"a": "1", "b": "True"}]


def test_the_readme_shows_the_tables() -> None:
    """The README's tables of keys, placeholders and states are those of the code."""
    for cls in (JobConfig, Container):
        assert keys_table(cls) in README, f"the README's table of {cls.__name__} is not:\n{keys_table(cls)}"
    for name, meaning in script.PLACEHOLDERS.items():
        assert f"| `@{{{name}}}` | {meaning} |" in README
    for state in STATES:
        assert f"| `{state.name}` | {state.code} | `{state.status}` | {state.meaning} |" in README


def test_a_script_quotes_what_it_is_given(tmp_path: Path) -> None:
    """Names with quotes, blanks and substitutions stay text; a shell reads the built-in script without complaint."""
    awkward = str(tmp_path / "a b$(touch pwned)'\"")
    given = config(
        modules=["gcc/12", "cuda"], signal="USR2@30", container={"image": "my image.sif", "options": ["--nv"]}
    )
    text = script.render(script.default_template(), given, "name", awkward, [awkward])
    lines = text.splitlines()
    assert "module load -- gcc/12 cuda || exit 1" in lines
    assert "signal=USR2" in lines
    assert "apptainer exec --bind" in text
    assert "--nv 'my image.sif' bash" in text
    file = tmp_path / "job.sh"
    file.write_text(text)
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True).returncode == 0
    shown = subprocess.run(["bash", "-c", f'{lines[2]}; echo "$task"'], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout == f"{awkward}/0\n"
    assert not list(tmp_path.glob("pwned"))


def test_pyxis_mounts_and_starts_a_step() -> None:
    """pyxis adds its flags to srun."""
    made = script.container_command(Container(runtime="pyxis", image="nvcr.io#nvidia/x:1", binds=("/data:/d",)), ["/j"])
    assert made[:2] == ["srun", "--ntasks=1"]
    assert made[2:] == ["--container-image=nvcr.io#nvidia/x:1", "--container-mounts=/j:/j,/data:/d"]


def test_templates_are_checked() -> None:
    """Only `@{name}` is a placeholder; a wrong one names the nearest, and a script has to start with #!."""
    text = script.render("#!/bin/sh\necho ${HOME} $1 @x user@host @{tasks}\n", config(), "n", "/t", [])
    assert text == "#!/bin/sh\necho ${HOME} $1 @x user@host /t\n"
    with pytest.raises(MlflowException, match=r"Did you mean '@\{tasks\}'"):
        script.render("#!/bin/sh\n@{task}\n", config(), "n", "/t", [])
    with pytest.raises(MlflowException, match="start with"):
        script.render("echo\n", config(), "n", "/t", [])


def test_the_environment_is_split() -> None:
    """What may be a credential goes apart; what belongs to the submitting process or another job stays behind."""
    plain, secret = script.split_environment(
        {
            "PATH": "/bin", "LANG": "C", "MLFLOW_TRACKING_URI": "http://u:p@h", "MY_API_KEY": "k", "LICENCE": "l",
            "SLURM_JOB_ID": "1", "PWD": "/x", "MLFLOW_RUN_ID": "r", "BASH_FUNC_module%%": "() { :; }", "PWD_LOG": "x",
        },
        ["LICENCE"],
    )  # fmt: skip
    assert plain == {"PATH": "/bin", "LANG": "C", "PWD_LOG": "x"}
    assert secret == {"MLFLOW_TRACKING_URI": "http://u:p@h", "MY_API_KEY": "k", "LICENCE": "l"}
    assert script.exports({"A": "it's\nhere"}) == "export A='it'\"'\"'s\nhere'\n"


def test_local_stores_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job runs in another folder than the caller."""
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute("mlruns") == f"{tmp_path}/mlruns"
    for uri in ("sqlite:////a/b.db", "https://mlflow.example.com", f"file://{tmp_path}"):
        assert absolute(uri) == uri


def test_sacct_is_read() -> None:
    """Jobs, steps, arrays that wait, and "CANCELLED by"; the peak is the largest step's."""
    text = (
        "7|COMPLETED|0:0|65|node1||None\n7.batch|COMPLETED|0:0|65|node1|2048K|\n7.0|COMPLETED|0:0|5|node1|1.5M|\n"
        "8|CANCELLED by 1000|0:15|3|node2||None\n9_1|RUNNING|0:0|2|node1||None\n"
        "9_[2-3,5%2]|PENDING|0:0|0|None assigned||None\n"
        "torn line\n"
    )
    found = read_sacct(text)
    assert sorted(found) == ["7", "8", "9_1", "9_2", "9_3", "9_5"]
    assert (found["7"].peak_memory, found["7"].elapsed, found["7"].nodes) == (2048 * 1024, 65.0, "node1")
    assert (found["8"].state.name, found["8"].exit_code) == ("CANCELLED", "0:15")
    assert (found["9_3"].state.name, found["9_3"].nodes) == ("PENDING", "")


def test_scontrol_is_read() -> None:
    """Arrays have ids of their own there; another user's job name cannot forge a state."""
    text = (
        "JobId=12 ArrayJobId=10 ArrayTaskId=2 JobName=x JobState=TIMEOUT Reason=TimeLimit Restarts=1 ExitCode=0:15 "
        "RunTime=1-00:01:05 NodeList=n[1-2]\n"
        "JobId=10 ArrayJobId=10 ArrayTaskId=3-4%1 JobName=x JobState=PENDING Reason=Priority NodeList=(null)\n"
    )
    found = read_scontrol(text)
    assert sorted(found) == ["10_2", "10_3", "10_4"]
    seen = found["10_2"]
    assert (seen.state.name, seen.elapsed, seen.restarts, seen.nodes) == ("TIMEOUT", 86465.0, 1, "n[1-2]")


def test_small_texts_are_read(tmp_path: Path) -> None:
    """Ids, durations, sizes, and exit-code files that a full disk left empty."""
    assert list(job_ids("5_[0-6:3]")) == ["5_0", "5_3", "5_6"]
    assert [read_duration(t) for t in ("0:03", "1:02:03", "INVALID")] == [3.0, 3723.0, None]
    assert [read_memory(t) for t in ("", "0", "3G")] == [None, 0, 3 * 1024**3]
    file = tmp_path / "exit"
    assert read_exit_file(file) is None
    file.write_text("")
    assert read_exit_file(file) is None
    file.write_text("3 17 node1\n")
    seen = read_exit_file(file)
    assert seen is not None
    assert (seen.state.name, seen.exit_code, seen.elapsed, seen.nodes) == ("FAILED", "3:0", 17.0, "node1")


def test_every_state_has_a_status_that_mlflow_knows() -> None:
    """By name and by code, and no two rows have one in common."""
    from mlflow.entities import RunStatus

    for state in STATES:
        assert RunStatus.from_string(state.status)
        assert job_state(state.name) == job_state(state.code) == state
    assert len({s.name for s in STATES}) == len({s.code for s in STATES}) == len(STATES)


@pytest.mark.parametrize("row", SLURM_ERRORS.rows, ids=lambda row: row.match)
def test_every_error_has_a_code_and_a_remedy(row: ErrorRow) -> None:
    """Each row of the table comes out as MLflow's error, with the command's own words."""
    error: Exception = SlurmCommandError("sbatch", "the command's words", row.match)
    if row.match.startswith("E") and not row.match.startswith("ESLURM"):
        import errno

        error = OSError(getattr(errno, row.match), "the command's words")
    elif "." in row.match:
        error = SlurmCommandError("sbatch", "the command's words")
    with (
        pytest.raises(MlflowException, match=r"could not test: .*the command's words") as caught,
        SLURM_ERRORS.applied("test"),
    ):
        raise error
    assert caught.value.error_code == row.code
    assert str(caught.value).endswith(row.hint)
