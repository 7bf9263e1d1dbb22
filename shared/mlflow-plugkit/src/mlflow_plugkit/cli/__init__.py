"""The command line `mlflow-plugkit`: `list`, `doctor`, `new`.

It needs the extra `mlflow-plugkit[cli]`; without it, the command says so and ends with status 2.
"""

from __future__ import annotations

import sys

NEEDS_EXTRA = "The command line needs the packages click and rich. Install them with: pip install 'mlflow-plugkit[cli]'"


def main() -> None:
    """The console script."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        sys.stderr.write(f"{NEEDS_EXTRA}\n")
        raise SystemExit(2) from None
    from mlflow_plugkit.cli.commands import group

    group(prog_name="mlflow-plugkit")
