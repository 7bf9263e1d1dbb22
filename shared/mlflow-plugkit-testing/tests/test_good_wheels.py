"""A correct distribution keeps every packaging rule, and the shapes that the rules must tell apart."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
from fake_distribution import write_distribution

from mlflow_plugkit_testing.wheels import PackagingConformance

PLUGIN = '''"""Thin factories."""

def repository(artifact_uri, tracking_uri=None, registry_uri=None, **kwargs):
    raise NotImplementedError

def tracking_store(store_uri=None, artifact_uri=None):
    raise NotImplementedError

def registry_store(store_uri=None, tracking_uri=None):
    raise NotImplementedError

def scorer_store(tracking_uri=None):
    raise NotImplementedError

def app():
    raise NotImplementedError

def main():
    pass
'''

PROVIDERS = '''"""What needs MLflow's bases."""

from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.tracking.context.abstract_context import RunContextProvider
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider


class Context(RunContextProvider):
    def in_context(self):
        return False

    def tags(self):
        return {}


class Headers(RequestHeaderProvider):
    def in_context(self):
        return False

    def request_headers(self):
        return {}


class Backend(AbstractBackend):
    def run(self, *args):
        raise NotImplementedError
'''

TARGET = '''"""A deployment target."""

from mlflow.deployments import BaseDeploymentClient


def run_local(name, model_uri, flavor=None, config=None):
    raise NotImplementedError


def target_help():
    return ""


class Client(BaseDeploymentClient):
    pass
'''

POINTS = {
    "mlflow.artifact_repository": {"good-wheel": "good_wheel.plugin:repository"},
    "mlflow.tracking_store": {"good-wheel": "good_wheel.plugin:tracking_store"},
    "mlflow.model_registry_store": {"good-wheel": "good_wheel.plugin:registry_store"},
    "mlflow.scorer_store": {"good-wheel": "good_wheel.plugin:scorer_store"},
    "mlflow.run_context_provider": {"good": "good_wheel.providers:Context"},
    "mlflow.request_header_provider": {"good": "good_wheel.providers:Headers"},
    "mlflow.project_backend": {"good": "good_wheel.providers:Backend"},
    "mlflow.deployments": {"good": "good_wheel.target"},
    "mlflow.app": {"good": "good_wheel.plugin:app"},
    "console_scripts": {"good": "good_wheel.plugin:main"},
}
MODULES = {
    "good_wheel/__init__.py": "",
    "good_wheel/py.typed": "",
    "good_wheel/plugin.py": PLUGIN,
    "good_wheel/providers.py": PROVIDERS,
    "good_wheel/target.py": TARGET,
}


class TestGoodWheel(PackagingConformance):
    distribution = "good-wheel"

    @pytest.fixture(scope="class")
    @classmethod
    def python_folders(cls, tmp_path_factory):
        return (str(write_distribution(tmp_path_factory.mktemp("site"), "good-wheel", MODULES, POINTS)),)


def test_an_editable_install_is_examined_in_its_source_folder(tmp_path):
    write_distribution(tmp_path / "src", "unused", MODULES, {})
    write_distribution(tmp_path / "site", "good-wheel", {"_good_wheel.pth": f"{tmp_path / 'src'}\n"}, POINTS)
    (dist,) = Distribution.discover(name="good-wheel", path=[str(tmp_path / "site")])
    suite = TestGoodWheel()
    suite.test_it_ships_one_package_of_its_own_name(dist)
    suite.test_types_are_declared(dist)
    (tmp_path / "src" / "good_wheel" / "py.typed").unlink()
    with pytest.raises(AssertionError, match=r"no py\.typed"):
        suite.test_types_are_declared(dist)


def test_a_distribution_that_is_not_installed_is_named():
    suite = TestGoodWheel()
    with pytest.raises(AssertionError, match="good-wheel is not installed"):
        suite.find_distribution(())
