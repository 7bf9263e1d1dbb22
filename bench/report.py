"""How every benchmark of single figures gives them: a line each, and a JSON file where one is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def publish(figures: Mapping[str, Any], file: Path | None) -> None:
    """Print the figures by name, and write them to `file` if there is one."""
    print("\n".join(f"{name}: {value}" for name, value in figures.items()))
    if file:
        file.write_text(json.dumps(figures, indent=1) + "\n")
