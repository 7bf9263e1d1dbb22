"""Container and control-group limits, for version 1 and version 2 of control groups.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html,
https://docs.kernel.org/scheduler/sched-bwc.html, podman's `/run/.containerenv` (podman-run(1)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mlflow_run_context.files import text_of
from mlflow_run_context.tables import IMAGES

Found = dict[str, str]
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_CONTAINER_ENV = re.compile(r"^(?P<name>engine|name|id|image|imageid)=\"?(?P<value>[^\"\n]*)\"?$", re.MULTILINE)
_NO_LIMIT = 1 << 60  # version 1 writes "no limit" as the largest multiple of a page


def container(root: Path = Path("/")) -> Found:
    """`container.*`: runtime, image, id, and the limits `memory_limit_mib` and `cpu_limit`."""
    found: Found = {}
    if runtime := _runtime(root):
        found["container.runtime"] = runtime
    about = {m["name"]: m["value"] for m in _CONTAINER_ENV.finditer(text_of(root / "run/.containerenv"))}
    if about.get("imageid"):
        found["container.image_id"] = about["imageid"]
    image = next((v for v in map(os.environ.get, IMAGES) if v), None) or about.get("image")
    if image:
        found["container.image"] = image
    if runtime and (identity := about.get("id") or _container_id(root)):
        found["container.id"] = identity
    return found | limits(root)


def _runtime(root: Path) -> str:
    if os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER"):
        return "apptainer"
    if (root / "run/.containerenv").exists():
        return "podman"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    return os.environ.get("container", "")  # noqa: SIM112 # systemd and podman write it in small letters


def _container_id(root: Path) -> str:
    groups = _ID.search(text_of(root / "proc/self/cgroup"))
    if groups:
        return groups[0]
    for line in text_of(root / "proc/self/mountinfo", 256 * 1024).splitlines():
        # "... /var/lib/docker/containers/<id>/hostname /etc/hostname ..."; other 64-digit names are image layers.
        if "/etc/hostname" in line and (mounted := _ID.search(line)):
            return mounted[0]
    return ""


def limits(root: Path = Path("/")) -> Found:
    """The lowest limit of the process's control group and of those around it."""
    groups = dict(_groups(root))
    memory, cpus = [*_memory(root, groups)], [*_cpus(root, groups)]
    found: Found = {}
    if memory and min(memory) < _NO_LIMIT:
        found["container.memory_limit_mib"] = str(min(memory) // (1 << 20))
    if cpus:
        found["container.cpu_limit"] = f"{min(cpus):g}"
    return found


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """(controller, path) of /proc/self/cgroup; version 2's controller is ""."""
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _folders(base: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it; inside a container the path may be the host's and not be there."""
    inner = PurePosixPath("/", path)
    for group in (inner, *inner.parents):
        if ".." not in group.parts:
            yield base / group.relative_to("/")


def _memory(root: Path, groups: dict[str, str]) -> Iterator[int]:
    base = root / "sys/fs/cgroup"
    places = [(folder, "memory.max") for folder in _folders(base, groups.get("", "/"))]
    places += [(folder, "memory.limit_in_bytes") for folder in _folders(base / "memory", groups.get("memory", "/"))]
    for folder, name in places:
        text = text_of(folder / name, 100)
        if text.isdecimal():
            yield int(text)


def _cpus(root: Path, groups: dict[str, str]) -> Iterator[float]:
    base = root / "sys/fs/cgroup"
    pairs = [text_of(folder / "cpu.max", 100).split() for folder in _folders(base, groups.get("", "/"))]
    for name in ("cpu", "cpu,cpuacct"):
        for folder in _folders(base / name, groups.get("cpu", "/")):
            pairs.append([text_of(folder / f"cpu.cfs_{what}_us", 100) for what in ("quota", "period")])
    for pair in pairs:
        if len(pair) == 2 and all(p.isdecimal() for p in pair) and int(pair[1]):
            yield round(int(pair[0]) / int(pair[1]), 3)
