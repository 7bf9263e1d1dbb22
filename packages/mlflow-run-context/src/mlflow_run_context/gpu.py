"""GPUs: what the driver shows in files, at once, and what `nvidia-smi` says, when it answers.

Sources: https://docs.nvidia.com/deploy/nvidia-smi/ (--query-gpu), /proc/driver/nvidia of NVIDIA's Linux driver,
/sys/class/drm and /sys/module/amdgpu of the Linux kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from mlflow_run_context.commands import CommandError, output
from mlflow_run_context.files import text_of

Found = dict[str, str]
TIMEOUT = 5.0
MOST = 64
_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
_DRIVER = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(?P<version>\d[\d.]+)")
_VERSION = re.compile(r"\d[\w.]*")
_AMD = "0x1002"


def has_drivers(root: Path = Path("/")) -> bool:
    """Whether there is a file to read at all."""
    return any(os.path.isdir(root / place) for place in ("proc/driver/nvidia", "sys/module/amdgpu"))


def from_files(root: Path = Path("/")) -> Found:
    """`gpu.*` without a process: from NVIDIA's and AMD's drivers on Linux."""
    found: Found = {}
    models = []
    for folder in _folders(root / "proc/driver/nvidia/gpus"):
        about = dict(line.partition(":")[::2] for line in text_of(folder / "information").splitlines())
        models.append(about.get("Model", "").strip())
    if models:
        driver = _DRIVER.search(text_of(root / "proc/driver/nvidia/version"))
        return found | _gpus(models, driver["version"] if driver else "")
    for card in _folders(root / "sys/class/drm"):
        if re.fullmatch(r"card\d+", card.name) and text_of(card / "device/vendor", 20) == _AMD:
            models.append(text_of(card / "device/product_name", 200) or "AMD GPU")
    return found | _gpus(models, text_of(root / "sys/module/amdgpu/version", 50)) if models else found


def from_nvidia_smi() -> Found:
    """`gpu.*` as `nvidia-smi` says, with the memory.

    Raises:
        CommandError: it is not there, hangs, fails, or says something else than a table of GPUs.
    """
    text = output(_QUERY, limit=64 * 1024, timeout=TIMEOUT).decode("utf-8", "replace")
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    if not rows or len(rows) > MOST or not all(_is_gpu(row) for row in rows):
        raise CommandError("nvidia-smi did not answer with a table of GPUs")
    memory = sorted({int(row[2]) for row in rows if row[2].isdecimal()})
    found = _gpus([row[0] for row in rows], rows[0][1])
    return found | ({"gpu.memory_mib": ", ".join(map(str, memory))} if memory else {})


def _is_gpu(row: list[str]) -> bool:
    return len(row) == 3 and 0 < len(row[0]) < 100 and row[0].isprintable() and bool(_VERSION.fullmatch(row[1]))


def _gpus(models: list[str], driver: str) -> Found:
    names = list(dict.fromkeys(model for model in models if model))
    found = {"gpu.count": str(len(models)), "gpu.model": ", ".join(names), "gpu.driver": driver}
    return {key: value for key, value in found.items() if value}


def visible() -> Found:
    """`gpu.visible`: the GPUs that this process was given."""
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    value = next((v for v in map(os.environ.get, names) if v), None)
    return {"gpu.visible": value} if value else {}


def _folders(path: Path) -> Iterable[Path]:
    try:
        return sorted(path.iterdir())[:MOST]
    except OSError:
        return []
