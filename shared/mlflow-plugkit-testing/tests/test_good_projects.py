"""A minimal correct project backend passes every rule."""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow_plugkit_testing.projects import ProjectBackendConformance

sys.path.append(str(Path(__file__).parent / "broken"))


def plain_backend():
    from plain_projects import PlainBackend

    return PlainBackend()


class TestPlainBackend(ProjectBackendConformance):
    backend_name = "plain"
    backend_class = staticmethod(plain_backend)
