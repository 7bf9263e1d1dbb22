"""One distribution with every fault that can stand beside the others, and small ones for the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from fake_distribution import write_distribution

from mlflow_plugkit_testing.wheels import PackagingConformance

FAULTS = {
    "oss2.py": "",
    "plugin/__init__.py": "",
    "plugin/raises.py": (
        "try:\n    import a_package_that_is_not_there\n"
        "except ImportError:\n    raise RuntimeError('pip install a-package-that-is-not-there')\n"
    ),
    "plugin/full.py": "import flask\n\ndef store(store_uri=None, artifact_uri=None): ...\n",
    "plugin/slow.py": (
        "import time\nstart = time.process_time()\nwhile time.process_time() < start + 0.2:\n    pass\n"
        "def repository(artifact_uri, tracking_uri=None, registry_uri=None): ...\n"
    ),
    "plugin/eager.py": "import oss2\n\ndef repository(artifact_uri, tracking_uri=None, registry_uri=None): ...\n",
    "plugin/old.py": (
        "def repository(artifact_uri): ...\n"
        "class Context:\n"
        "    def __init__(self):\n        raise OSError('no such variable')\n"
        "    def in_context(self): ...\n"
        "    def tags(self): ...\n"
    ),
}
POINTS = {
    "mlflow.artifact_repositories": {"misspelt": "plugin.old:repository"},
    "mlflow.artifact_repository": {
        "old": "plugin.old:repository",
        "s3": "plugin.slow:repository",
        "Upper": "plugin.eager:repository",
        "claimed-twice": "plugin.eager:repository",
    },
    "mlflow.tracking_store": {"raises": "plugin.raises:store", "full": "plugin.full:store"},
    "mlflow.run_context_provider": {"unused": "plugin.old:Context"},
    "console_scripts": {"broken": "plugin.nothing:main"},
}


class TestEveryFault(PackagingConformance):
    breaks = {
        "test_entry_points_stand_in_groups_that_mlflow_reads": "groups that MLflow never reads",
        "test_entry_points_load_in_a_clean_interpreter": "do not load in a clean interpreter",
        "test_console_scripts_load": "console scripts that do not load",
        "test_a_missing_dependency_is_an_import_error": "raises what breaks `import mlflow`",
        "test_entry_points_load_with_mlflow_skinny": "do not load with mlflow-skinny",
        "test_loading_is_cheap": "ms CPU to `import mlflow`, more than",
        "test_entry_point_modules_import_no_sdk": "entry-point modules import heavy packages",
        "test_entry_points_take_what_mlflow_passes": "entry points that MLflow cannot use",
        "test_providers_are_made_without_an_error": "constructors that raise when MLflow is imported",
        "test_names_can_be_reached": "entry-point names that MLflow never looks up",
        "test_no_builtin_is_replaced": "replace MLflow's own without replaces_builtins",
        "test_no_other_plugin_claims_its_names": "other installed distributions claim as well",
        "test_it_ships_one_package_of_its_own_name": "the wheel ships the top-level names",
        "test_types_are_declared": "ships no py.typed",
        "test_the_licence_is_included": "holds no licence file",
        "test_the_mlflow_range_is_declared": "no Requires-Dist on mlflow",
    }
    distribution = "every-fault"

    @pytest.fixture(scope="class")
    @classmethod
    def python_folders(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("site")
        other = {"mlflow.artifact_repository": {"claimed-twice": "other:repository"}}
        write_distribution(folder, "another-plugin", {}, other)
        write_distribution(folder, "every-fault", FAULTS, POINTS, requires=(), licence=False)
        return (str(folder),)


class RangeOf(PackagingConformance):
    distribution = "ranged"
    requires = ""

    @pytest.fixture(scope="class")
    @classmethod
    def python_folders(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("site")
        return (str(write_distribution(folder, "ranged", {}, {}, requires=(cls.requires,))),)


class TestNoFloor(RangeOf):
    breaks = {"test_the_mlflow_range_is_declared": "no oldest MLflow is declared"}
    requires = "mlflow<4"


class TestNoUpperBound(RangeOf):
    breaks = {"test_the_mlflow_range_is_declared": "no upper bound at the next major version"}
    requires = "mlflow-skinny>=2.22"


class TestAnotherMajor(RangeOf):
    breaks = {"test_the_mlflow_range_is_declared": "is outside the declared range"}
    requires = "mlflow>=0.9,<1"


class TestSqlDialectAsScheme(RangeOf):
    breaks = {"test_names_can_be_reached": "MLflow looks up 'mssql'"}

    @pytest.fixture(scope="class")
    @classmethod
    def python_folders(cls, tmp_path_factory):
        points = {"mlflow.artifact_repository": {"mssql+pyodbc": "a:b"}}
        return (str(write_distribution(tmp_path_factory.mktemp("site"), "ranged", {}, points)),)
