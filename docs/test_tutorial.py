"""The tutorial works: its commands and its code are run in order, as they stand on the page.

Read from the Markdown: `console` blocks (a line `$ ...` is run; lines below it must be in what it prints), `python`
blocks with a caption (a file to write) and `diff` blocks with a caption (changes to that file; hunks are separated by
`@@`). A comment `<!-- fails -->` before a block says that its last command must fail, `<!-- not run: why -->` that the
block is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parent / "tutorial" / "your-first-plugin.md"
BLOCK = re.compile(
    r"(?:<!-- (?P<note>fails|not run: [^>]*) -->\n)?```(?:\{code-block\} )?(?P<language>\w+)\n"
    r"(?::caption: (?P<file>\S+)\n\n)?(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a virtual environment that sees the packages of this one, and can be installed into."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
    python = venv / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    purelib = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    outer = sysconfig.get_path("purelib")
    Path(purelib, "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    path = os.pathsep.join([str(venv / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "COLUMNS": "200"}
    return {**keep, **quiet, "PATH": path, "VIRTUAL_ENV": str(venv)}


@pytest.mark.slow
def test_the_tutorial_works_as_it_is_written(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    blocks = list(BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8")))
    assert len(blocks) > 10, "the blocks of the tutorial were not found"
    for block in blocks:
        note = block["note"] or ""
        if note.startswith("not run"):
            continue
        if block["language"] == "console":
            for command, printed in commands(block["text"]):
                if command.startswith("cd "):
                    folder = folder / command.removeprefix("cd ")
                else:
                    run(command, printed, folder, environment, fails=note == "fails")
        elif block["language"] == "python":
            (folder / block["file"]).write_text(block["text"], encoding="utf-8")
        else:
            assert block["language"] == "diff", block["language"]
            change(folder / block["file"], block["text"])


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it must print."""
    for part in text.removeprefix("$ ").split("\n$ "):
        command, *printed = part.strip().splitlines()
        yield command, printed


def run(command: str, printed: list[str], folder: Path, environment: dict[str, str], *, fails: bool) -> None:
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    output = result.stdout + result.stderr
    shown = f"$ {command}\n{output[-6000:]}"
    assert (result.returncode != 0) == fails, f"exit status {result.returncode}: {shown}"
    for line in printed:
        assert line in output, f"{line!r} was not printed: {shown}"


def change(file: Path, diff: str) -> None:
    """Apply a diff: what its ` ` and `-` lines say must be in the file exactly once."""
    text = file.read_text(encoding="utf-8")
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines()
        before = "".join(line[1:] + "\n" for line in lines if line[:1] in (" ", "-"))
        after = "".join(line[1:] + "\n" for line in lines if line[:1] in (" ", "+"))
        assert text.count(before) == 1, f"{file.name} has this {text.count(before)} times, not once:\n{before}"
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")
