"""Tables, container limits, GPUs, lock files and the machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_run_context import environment, gpu, machine
from mlflow_run_context.commands import CommandError
from mlflow_run_context.container import container, limits
from mlflow_run_context.lockfiles import lock_files
from mlflow_run_context.tables import CI, SCHEDULERS, WORKFLOWS, System
from mlflow_run_context.values import is_secret_name

Tags = Callable[[], dict[str, str]]
MIB = 1 << 20


@pytest.mark.parametrize("system", [*CI, *WORKFLOWS, *SCHEDULERS], ids=lambda system: system.name)
def test_each_row_of_a_system_gives_its_tag(system: System) -> None:
    environ = {system.markers[0]: "marker"}
    prefix = "ci" if system in CI else "workflow" if system in WORKFLOWS else system.name
    ask = environment.scheduler if system in SCHEDULERS else environment.ci
    for tag, variables in system.rows.items():
        for variable in variables:
            found = ask({**environ, variable: "value"})
            assert found[f"{prefix}.{tag}"] == "value", variable
    named = ask(dict.fromkeys(system.markers, "marker"))
    assert named["scheduler" if system in SCHEDULERS else f"{prefix}.system"] == system.name


@pytest.mark.parametrize("system", [*CI, *WORKFLOWS, *SCHEDULERS], ids=lambda system: system.name)
def test_no_row_reads_a_secret_and_each_system_names_its_source(system: System) -> None:
    assert not [v for variables in system.rows.values() for v in variables if is_secret_name(v)]
    assert system.source.startswith("https://")
    assert len(system.markers) == len(set(system.markers)) > 0


def test_a_job_in_several_schedulers_names_them_all() -> None:
    environ = {
        "SLURM_JOB_ID": "7",
        "RAY_JOB_ID": "02000000",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "HOSTNAME": "pod-0",
    }
    found = environment.scheduler(environ)
    assert found["scheduler"] == "slurm, ray, kubernetes"
    assert (found["slurm.job_id"], found["ray.job_id"], found["kubernetes.pod"]) == ("7", "02000000", "pod-0")


def test_the_url_of_a_github_run_is_put_together() -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b"}
    assert environment.ci(environ | {"GITHUB_RUN_ID": "9"})["ci.url"] == "https://github.com/a/b/actions/runs/9"


def test_the_environment_is_read_for_each_run(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert tags()["ctx.slurm.job_id"] == "1"
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    assert tags()["ctx.slurm.job_id"] == "2"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_version_2_are_the_lowest_of_all_levels(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/pod/app/memory.max": "max\n",
            "sys/fs/cgroup/pod/memory.max": f"{512 * MIB}\n",
            "sys/fs/cgroup/pod/app/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
        },
    )
    assert limits(root) == {"container.memory_limit_mib": "512", "container.cpu_limit": "1.5"}


def test_limits_of_version_1_also_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2048 * MIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert limits(root) == {"container.memory_limit_mib": "2048", "container.cpu_limit": "0.5"}


def test_no_limit_is_no_tag(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n0::/../..\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory.max": "garbage\n",
            "sys/fs/cgroup/cpu.max": "1 0\n",
        },
    )
    assert limits(root) == {}


def test_podman_tells_its_image_and_docker_its_id(tmp_path: Path) -> None:
    about = 'engine="podman-4.9"\nname="happy"\nid="abc"\nimage="registry.example.com/train:1"\nimageid="f00"\n'
    podman = container(write(tmp_path / "podman", {"run/.containerenv": about}))
    assert podman["container.runtime"] == "podman"
    assert podman["container.image"] == "registry.example.com/train:1"
    assert (podman["container.id"], podman["container.image_id"]) == ("abc", "f00")
    mount = f"1 0 0:1 /var/lib/docker/containers/{'c' * 64}/hostname /etc/hostname rw - ext4 /dev/x rw\n"
    layers = f"1 0 0:1 / / rw - overlay overlay rw,lowerdir={'a' * 64}\n"
    files = {".dockerenv": "", "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": layers + mount}
    docker = container(write(tmp_path / "docker", files))
    assert docker == {"container.runtime": "docker", "container.id": "c" * 64}


def test_the_image_is_what_the_variable_says(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    image = f"registry.example.com/train@sha256:{'0a' * 32}"
    monkeypatch.setenv("CONTAINER_IMAGE", image)
    assert tags()["ctx.container.image"] == image


def test_nvidias_files_give_model_count_and_driver(tmp_path: Path) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: 12\n"
    about = "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 101\n"
    gpus = {f"proc/driver/nvidia/gpus/0000:{n:02}:00.0/information": about for n in range(2)}
    root = write(tmp_path, {"proc/driver/nvidia/version": version, **gpus})
    found = gpu.from_files(root)
    assert found == {"gpu.count": "2", "gpu.model": "NVIDIA A100-SXM4-80GB", "gpu.driver": "550.54.15"}
    assert gpu.has_drivers(root)


def test_amds_files_give_model_and_count(tmp_path: Path) -> None:
    cards = {"sys/class/drm/card0/device/vendor": "0x1002\n", "sys/class/drm/card0-DP-1/device/vendor": "0x1002\n"}
    other = {"sys/class/drm/card1/device/vendor": "0x8086\n", "sys/module/amdgpu/version": "6.7.0\n"}
    root = write(tmp_path, {**cards, **other, "sys/class/drm/card0/device/product_name": "Instinct MI300X\n"})
    assert gpu.from_files(root) == {"gpu.count": "1", "gpu.model": "Instinct MI300X", "gpu.driver": "6.7.0"}


def test_nvidia_smi_gives_the_memory_too(command: Callable[[str, str], Path], tags: Tags) -> None:
    command("nvidia-smi", 'printf "NVIDIA H100, 550.54.15, 81559\\nNVIDIA H100, 550.54.15, 81559\\n"')
    found = tags()
    assert (found["ctx.gpu.count"], found["ctx.gpu.model"], found["ctx.gpu.driver"]) == (
        "2",
        "NVIDIA H100",
        "550.54.15",
    )
    assert found["ctx.gpu.memory_mib"] == "81559"


@pytest.mark.parametrize(
    "text",
    [
        "exit 9",
        "echo NVIDIA-SMI has failed because it could not communicate with the driver",
        "head -c 1000000 /dev/urandom",
        "yes 'NVIDIA H100, 550.54.15, 81559'",
        "true",
        "printf 'a, b\\n'",
    ],
)
def test_an_nvidia_smi_that_lies_gives_no_tags(text: str, command: Callable[[str, str], Path], tags: Tags) -> None:
    command("nvidia-smi", text)
    with pytest.raises(CommandError):
        gpu.from_nvidia_smi()
    assert not [key for key in tags() if key.startswith("ctx.gpu.")]


def test_lock_files_of_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (tmp_path / "requirements-dev.txt").write_text("pytest\n")
    (tmp_path / "requirements.in").write_text("pytest\n")
    found = lock_files(inner)
    assert list(found) == ["lock.uv.lock", "lock.requirements-dev.txt"]
    assert found["lock.uv.lock"] == f"sha256:{hashlib.sha256((tmp_path / 'uv.lock').read_bytes()).hexdigest()}"
    (inner / "poetry.lock").symlink_to("nowhere")
    (inner / "pixi.lock").write_text("")
    assert list(lock_files(inner)) == ["lock.pixi.lock"]


def test_lock_files_above_the_repository_are_not_the_projects(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("")
    (tmp_path / "project" / ".git").mkdir(parents=True)
    assert lock_files(tmp_path / "project") == {}


def test_the_machine_says_what_it_is(tags: Tags) -> None:
    found = tags()
    assert found["ctx.host.name"] == os.uname().nodename
    assert found["ctx.cpu.count"] == str(os.cpu_count())
    assert int(found["ctx.host.memory_mib"]) > 100
    assert found["ctx.python.version"].startswith("3.")


def test_hundreds_of_processors_are_not_read_to_the_end(tmp_path: Path) -> None:
    one = "processor\t: 0\nmodel name\t: EPYC 9754\nflags\t\t: " + "fpu " * 500 + "\n\n"
    root = write(tmp_path, {"proc/cpuinfo": one * 512})
    assert machine.cpu(root)["cpu.model"].strip() == "EPYC 9754"
    assert machine.cpu(tmp_path / "nowhere")["cpu.count"]
