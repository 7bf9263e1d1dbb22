"""The Python examples of the READMEs run, each README's in one process and in the order of the page.

A block marked `py` needs a service and is not run. `$ export NAME=value` lines of a console block before an
example are its environment.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = sorted(path for home in ("packages", "shared") for path in (ROOT / home).glob("*/README.md"))
BLOCK = re.compile(r"^```(?P<language>python|console)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

# The conformance classes of the examples override only what the kit's classes have.
CHECK = """
import sys
if "mlflow_plugkit_testing.suite" in sys.modules:
    suite = sys.modules["mlflow_plugkit_testing.suite"].ConformanceSuite
    for cls in [c for c in list(globals().values()) if isinstance(c, type) and issubclass(c, suite)]:
        own = [name for name in vars(cls) if not name.startswith("__") and cls.__module__ == "__main__"]
        unknown = [name for name in own if not any(hasattr(base, name) for base in cls.__bases__)]
        assert not unknown, (cls, unknown)
        cls().test_no_rule_is_switched_off()
"""


def script(readme: Path) -> str:
    """The examples as one script."""
    lines = ["import os"]
    for block in BLOCK.finditer(readme.read_text(encoding="utf-8")):
        if block["language"] == "python":
            lines.append(block["text"])
        else:
            exports = [line.removeprefix("$ export ") for line in block["text"].splitlines() if "$ export " in line]
            assignments = [word.partition("=") for line in exports for word in shlex.split(line)]
            lines += [f"os.environ[{name!r}] = {value!r}" for name, _, value in assignments]
    return "\n".join([*lines, CHECK])


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_examples_of_a_readme_run(readme: Path, tmp_path: Path) -> None:
    (tmp_path / "readme.py").write_text(script(readme), encoding="utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    command = [sys.executable, "readme.py"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
