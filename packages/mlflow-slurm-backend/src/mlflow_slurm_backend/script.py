"""The job script, and what it reads from the folder of each task. Pure functions over strings."""

from __future__ import annotations

import difflib
import re
import shlex
import string
from collections.abc import Mapping, Sequence
from importlib import resources

from mlflow_plugkit.errors import mlflow_error
from mlflow_slurm_backend.settings import Container, JobConfig

#: What a template may name, and what it is replaced with. Everything is quoted for the shell.
PLACEHOLDERS = {
    "name": "the job's name",
    "tasks": "the folder that holds a folder for each task: `0` for a single job, the array's indices otherwise",
    "modules": "lines that load the modules, or nothing",
    "launcher": "the words that start the container, or nothing",
    "requeue": "`true` or `false`",
    "signal": "the signal of the key `signal`, without prefix and time, or `''`",
}
_SECRET_NAME = re.compile(
    r"passw|secret|token|credential|api_?key|access_?key|private_?key|auth|_pat$|jwt", re.IGNORECASE
)
_SECRET_PREFIX = ("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "OSS_", "DATABRICKS_", "HF_", "WANDB_", "S3_", "MINIO_")
#: A job has its own: these belong to the process that submits, or to another job, or bash lets nobody set them.
_NOT_THE_JOBS = re.compile(
    r"SLURM_|SBATCH_|SLURMD_|BASH_FUNC|(PWD|OLDPWD|SHLVL|_|TMPDIR|HOSTNAME|XDG_RUNTIME_DIR|DISPLAY|UID|EUID|PPID|SHELLOPTS|BASHOPTS)$"
)
#: The run of the submitting process; MLflow sets the job's own.
_NOT_THE_RUNS = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
_LOAD_MODULES = """\
if ! type module >/dev/null 2>&1; then
  for init in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /usr/share/lmod/lmod/init/bash; do
    if [ -r "$init" ]; then . "$init"; break; fi
  done
fi
module load -- {modules} || exit 1"""
#: Runs the project and notes the peak memory of its largest process, in kilobytes (getrusage(2)).
_MEASURE = """\
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
try:
    with open(sys.argv[1], "w") as file:
        file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
except OSError:
    pass
sys.exit(code if code >= 0 else 128 - code)"""


class JobTemplate(string.Template):
    """A job script in which only `@{name}` is a placeholder: the shell's `$` keeps its meaning."""

    pattern = r"@\{(?P<braced>\w+)\}|(?P<escaped>(?!))|(?P<named>(?!))|(?P<invalid>(?!))"  # type: ignore[assignment] # a str until the class is made


def default_template() -> str:
    """The built-in template."""
    return resources.files("mlflow_slurm_backend").joinpath("job.sh.template").read_text(encoding="utf-8")


def render(template: str, config: JobConfig, name: str, tasks: str, binds: Sequence[str]) -> str:
    """The job script.

    Args:
        template: its text.
        config: the backend configuration.
        name: the job's name.
        tasks: the folder of the tasks' folders.
        binds: folders that a container has to see.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`: the template names an unknown placeholder, or does not
            start with `#!`.
    """
    if not template.startswith("#!"):
        raise mlflow_error("The job template does not start with '#!' and the path of a shell; sbatch demands it.")
    modules = _LOAD_MODULES.format(modules=shlex.join(config.modules)) if config.modules else ""
    values = {
        "name": shlex.quote(name),
        "tasks": shlex.quote(tasks),
        "modules": modules,
        "launcher": shlex.join(container_command(config.container, binds)) if config.container else "",
        "requeue": "true" if config.requeue else "false",
        "signal": shlex.quote(config.signal_name),
    }
    try:
        return JobTemplate(template).substitute(values)
    except KeyError as exc:
        near = difflib.get_close_matches(exc.args[0], PLACEHOLDERS, n=1)
        hint = f"Did you mean '@{{{near[0]}}}'?" if near else f"Known ones: {', '.join(PLACEHOLDERS)}."
        raise mlflow_error(f"The job template names the unknown placeholder '@{{{exc.args[0]}}}'. {hint}") from None


def container_command(container: Container, binds: Sequence[str]) -> list[str]:
    """The words in front of a command that run it in the container (apptainer-exec(1); pyxis' options of srun)."""
    mounts = [*dict.fromkeys(binds), *container.binds]
    if container.runtime == "pyxis":
        both = [mount if ":" in mount else f"{mount}:{mount}" for mount in mounts]
        return [
            "srun", "--ntasks=1", f"--container-image={container.image}", f"--container-mounts={','.join(both)}",
            *container.options,
        ]  # fmt: skip
    flags = [part for mount in mounts for part in ("--bind", mount)]
    return [container.runtime, "exec", *flags, *container.options, container.image]


def split_environment(environ: Mapping[str, str], private: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The environment for the job: what is plain, and what may be a credential.

    Both go through files of mode 0600. The plain part is set first, so that modules and containers can change
    it; the other one is set last and, in a container, inside.
    """
    names = [n for n in environ if re.fullmatch(r"[A-Za-z_]\w*", n) and not _NOT_THE_JOBS.match(n)]
    secret = {n for n in names if n in private or n.startswith(_SECRET_PREFIX) or _SECRET_NAME.search(n)}
    plain = {n: environ[n] for n in names if n not in secret}
    return plain, {n: environ[n] for n in names if n in secret and n not in _NOT_THE_RUNS}


def exports(variables: Mapping[str, str]) -> str:
    """The shell's text that sets and exports the variables."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def project_command(python: str, task: str, arguments: Sequence[str], directory: str, *, requeue: bool) -> str:
    """The file `command` of a task: reads the credentials, then becomes `mlflow run` with these arguments.

    Without `requeue` the credentials are gone as soon as they were read.
    """
    credentials = shlex.quote(f"{task}/credentials")
    words = [python, "-c", _MEASURE, f"{task}/peak", python, "-m", "mlflow", "run", *arguments]
    forget = "" if requeue else f"rm -f {credentials}\n"
    return f". {credentials} || exit 1\n{forget}cd {shlex.quote(directory)} || exit 1\nexec {shlex.join(words)}\n"
