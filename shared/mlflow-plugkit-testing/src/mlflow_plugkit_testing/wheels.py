"""The conformance class for packaging: rules for any installed distribution that holds MLflow plugins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from mlflow_plugkit.compat import mlflow_version
from mlflow_plugkit_testing.server import plugin_env, run_cli
from mlflow_plugkit_testing.suite import ConformanceSuite
from mlflow_plugkit_testing.wheels_probe import SCRIPTS

SCHEME_GROUPS = ("mlflow.tracking_store", "mlflow.model_registry_store", "mlflow.artifact_repository")
KNOWN_GROUPS = {
    *SCHEME_GROUPS,
    "mlflow.request_auth_provider",
    "mlflow.request_header_provider",
    "mlflow.run_context_provider",
    "mlflow.default_experiment_provider",
    "mlflow.project_backend",
    "mlflow.model_evaluator",
    "mlflow.deployments",
    "mlflow.app",
    "mlflow.app.client",
    "mlflow.dataset_source",
    "mlflow.dataset_constructor",
    "mlflow.gateway.providers",
    "mlflow.scorer_store",
    "mlflow.labeling_store",
    "mlflow.workspace_provider",
    "mlflow.job_executors",
}
# What `mlflow` requires and `mlflow-skinny` does not (Requires-Dist of MLflow 2.22 to 3.17).
NOT_IN_SKINNY = (
    "alembic", "docker", "flask", "flask_cors", "graphene", "gunicorn", "huey", "matplotlib", "numpy", "pandas",
    "pyarrow", "scipy", "sklearn", "skops", "sqlalchemy", "waitress",
)  # fmt: skip
#: The newest major version of MLflow there is: a range may reach to its end, also where an older one is installed.
NEWEST_MAJOR = 3
_NOT_PACKAGES = (".dist-info", ".data", "__pycache__")


class PackagingConformance(ConformanceSuite):
    """Every rule for the distribution of a plugin, as pip installed it.

        class TestDemoPackaging(PackagingConformance):
            distribution = "mlflow-demo-artifacts"

    Run it on the installed wheel; of an editable install the source folder is examined instead of RECORD.
    """

    #: The distribution's name on the package index.
    distribution: str = ""
    #: SDKs and other heavy packages that must not be imported before the plugin is used.
    forbidden_imports: tuple[str, ...] = (
        "azure", "boto3", "botocore", "elasticsearch", "google", "grpc", "huggingface_hub", "matplotlib",
        "alibabacloud_oss_v2", "oss2", "pandas", "pyodbc", "pymssql", "ray", "sklearn", "sqlalchemy", "torch",
    )  # fmt: skip
    #: Milliseconds of CPU time that loading all entry points may add to `import mlflow`.
    import_budget_ms: float = 150
    #: Names that the plugin takes over from MLflow on purpose, such as `("mlflow.artifact_repository:s3",)`.
    replaces_builtins: tuple[str, ...] = ()
    #: Folders in front of sys.path; only needed where the distribution is not installed in this environment.
    python_path: tuple[str, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def python_folders(cls) -> tuple[str, ...]:
        """Folders in front of sys.path; the property `python_path` unless a test makes them."""
        return cls.python_path

    @pytest.fixture
    def dist(self, python_folders: tuple[str, ...]) -> Distribution:
        """The installed distribution under test."""
        return self.find_distribution(python_folders)

    def find_distribution(self, folders: tuple[str, ...]) -> Distribution:
        """The distribution's metadata, from the given folders or from sys.path."""
        assert self.distribution, "set distribution to the name on the package index"
        found = list(Distribution.discover(name=self.distribution, path=[*folders, *sys.path]))
        assert found, f"{self.distribution} is not installed in this environment"
        return found[0]

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, python_folders: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        """What a clean interpreter says that loads the entry points beside MLflow."""
        return cls._probe("load", (), python_folders, tmp_path_factory.mktemp("probe"))

    @pytest.fixture(scope="class")
    @classmethod
    def blocked(cls, python_folders: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        """The same where neither the SDKs nor what only the full MLflow requires can be imported."""
        names = (*NOT_IN_SKINNY, *(n for n in cls.forbidden_imports if n != "google"))
        return cls._probe("blocked", names, python_folders, tmp_path_factory.mktemp("probe"))

    @classmethod
    def _probe(cls, mode: str, names: tuple[str, ...], folders: tuple[str, ...], cwd: Path) -> dict[str, Any]:
        arguments = ["mlflow_plugkit_testing.wheels_probe", mode, cls.distribution, ",".join(names)]
        done = run_cli(arguments, env=plugin_env(folders), cwd=cwd)
        if done.returncode != 0:
            return {"crash": done.stderr[-2000:]}
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def test_entry_points_stand_in_groups_that_mlflow_reads(self, dist: Distribution) -> None:
        """A misspelt group is never read, without any message. Those of `mlflow_plugkit` are Plugkit's own."""
        theirs = (p.group for p in dist.entry_points if not p.group.startswith("mlflow_plugkit."))
        groups = {group for group in theirs if group.startswith("mlflow")}
        assert groups, f"{self.distribution} declares no entry point for MLflow"
        assert groups <= KNOWN_GROUPS, f"entry-point groups that MLflow never reads: {sorted(groups - KNOWN_GROUPS)}"

    def test_entry_points_load_in_a_clean_interpreter(self, loaded: Mapping[str, Any]) -> None:
        """Each entry point loads where nothing else has been imported before."""
        _no_crash(loaded)
        errors = {key: e[1] for key, e in loaded["errors"].items() if not key.startswith(SCRIPTS)}
        assert not errors, f"entry points that do not load in a clean interpreter: {errors}"

    def test_console_scripts_load(self, loaded: Mapping[str, Any]) -> None:
        """Each command's function is there."""
        _no_crash(loaded)
        errors = {key: e[1] for key, e in loaded["errors"].items() if key.startswith(SCRIPTS)}
        assert not errors, f"console scripts that do not load: {errors}"

    def test_a_missing_dependency_is_an_import_error(self, blocked: Mapping[str, Any]) -> None:
        """Any exception but ImportError or AttributeError at load breaks `import mlflow` for every user."""
        _no_crash(blocked)
        errors = {key: e[1] for key, e in blocked["errors"].items() if e[0] != "ImportError"}
        assert not errors, (
            f"where a dependency is missing, loading raises what breaks `import mlflow`: {errors}; let ImportError pass"
        )

    def test_entry_points_load_with_mlflow_skinny(self, blocked: Mapping[str, Any]) -> None:
        """Nothing that only the full MLflow requires is needed to load the plugin."""
        _no_crash(blocked)
        errors = {key: e[1] for key, e in blocked["errors"].items() if e[2].partition(".")[0] in NOT_IN_SKINNY and e[2]}
        assert not errors, f"entry points that do not load with mlflow-skinny: {errors}; import that on first use"

    def test_loading_is_cheap(self, loaded: Mapping[str, Any], python_folders: tuple[str, ...], tmp_path: Path) -> None:
        """All entry points together add little to `import mlflow`: CPU time, the best of three runs."""
        _no_crash(loaded)
        cost = float(loaded["cost_ms"])
        for _ in range(2):
            if cost <= self.import_budget_ms:
                break
            cost = min(cost, float(self._probe("load", (), python_folders, tmp_path)["cost_ms"]))
        assert cost <= self.import_budget_ms, (
            f"loading the entry points adds {cost:.1f} ms CPU to `import mlflow`, more than "
            f"{self.import_budget_ms:g} ms: import heavy packages on first use"
        )

    def test_entry_point_modules_import_no_sdk(self, python_folders: tuple[str, ...], tmp_path: Path) -> None:
        """The modules that entry points name leave SDKs alone until the plugin is used."""
        answer = self._probe("alone", self.forbidden_imports, python_folders, tmp_path)
        _no_crash(answer)
        assert not answer["forbidden"], (
            f"entry-point modules import heavy packages: {answer['forbidden']}; import them inside the functions"
        )

    def test_entry_points_take_what_mlflow_passes(self, loaded: Mapping[str, Any]) -> None:
        """Each object has the signature, methods and shape that MLflow's registry of its group expects."""
        _no_crash(loaded)
        assert not loaded["contracts"], f"entry points that MLflow cannot use: {loaded['contracts']}"

    def test_providers_are_made_without_an_error(self, loaded: Mapping[str, Any]) -> None:
        """MLflow makes providers without arguments when it is imported; they raise nothing then."""
        _no_crash(loaded)
        errors = {key: e[1] for key, e in loaded["constructors"].items()}
        assert not errors, f"constructors that raise when MLflow is imported: {errors}"

    def test_names_can_be_reached(self, dist: Distribution) -> None:
        """A scheme is looked up as `get_uri_scheme` reads it; `local` is never looked up as a project backend."""
        from mlflow.exceptions import MlflowException
        from mlflow.utils.uri import get_uri_scheme

        lost = {}
        for point in dist.entry_points:
            if point.group in SCHEME_GROUPS:
                try:
                    scheme = get_uri_scheme(f"{point.name}://host/path")
                except MlflowException as exc:
                    scheme = f"an error ({exc.message})"
                if scheme != point.name:
                    lost[f"{point.group}:{point.name}"] = f"MLflow looks up {scheme!r}"
            if (point.group, point.name) == ("mlflow.project_backend", "local"):
                lost["mlflow.project_backend:local"] = "MLflow always takes its own"
        assert not lost, f"entry-point names that MLflow never looks up: {lost}"

    def test_no_builtin_is_replaced(self, dist: Distribution, loaded: Mapping[str, Any]) -> None:
        """A plugin's name silently replaces MLflow's own of the same group; that must be on purpose."""
        _no_crash(loaded)
        builtins = loaded["builtins"]
        taken = {f"{p.group}:{p.name}" for p in dist.entry_points if p.name in builtins.get(p.group, ())}
        silent = sorted(taken - set(self.replaces_builtins))
        assert not silent, f"names that replace MLflow's own without replaces_builtins: {silent}"

    def test_no_other_plugin_claims_its_names(self, dist: Distribution, python_folders: tuple[str, ...]) -> None:
        """Of two plugins with one name, MLflow takes the one that stands later on sys.path."""
        claims: dict[str, set[str]] = {}
        for other in Distribution.discover(path=[*python_folders, *sys.path]):
            for point in other.entry_points:
                claims.setdefault(f"{point.group}:{point.name}", set()).add(_normal(other.name))
        mine = (f"{p.group}:{p.name}" for p in dist.entry_points if p.group.startswith("mlflow."))
        clashes = {key: sorted(claims[key] - {_normal(self.distribution), "mlflow", "mlflow_skinny"}) for key in mine}
        clashes = {key: others for key, others in clashes.items() if others}
        assert not clashes, f"names that other installed distributions claim as well: {clashes}"

    def test_it_ships_one_package_of_its_own_name(self, dist: Distribution) -> None:
        """The only top-level name is the distribution's own, with underscores: no `tests`, `plugin` or `store`."""
        tops = _top_level(dist)
        assert tops == {_normal(self.distribution)}, (
            f"the wheel ships the top-level names {sorted(tops)}; ship {_normal(self.distribution)!r} alone"
        )

    def test_types_are_declared(self, dist: Distribution) -> None:
        """`py.typed` tells type checkers that the package's annotations count (PEP 561)."""
        files = set(_files(dist))
        assert f"{_normal(self.distribution)}/py.typed" in files, "the package ships no py.typed"

    def test_the_licence_is_included(self, dist: Distribution) -> None:
        """The wheel holds the text of its licence."""
        names = [path.rpartition("/")[2].upper() for path in _files(dist) if ".dist-info/" in path]
        assert any(name.startswith(("LICENSE", "LICENCE", "COPYING")) for name in names), (
            "the wheel holds no licence file (license-files in pyproject.toml)"
        )

    def test_the_mlflow_range_is_declared(self, dist: Distribution) -> None:
        """Requires-Dist names the oldest MLflow and stops before the next major version; this one is inside."""
        wanted = [Requirement(line) for line in dist.requires or ()]
        ranges = [r for r in wanted if _normal(r.name) in ("mlflow", "mlflow_skinny") and not _is_extra(r)]
        assert ranges, "no Requires-Dist on mlflow or mlflow-skinny"
        current = mlflow_version()
        for requirement in ranges:
            operators = {spec.operator for spec in requirement.specifier}
            assert operators & {">=", ">", "~=", "=="}, f"no oldest MLflow is declared: {requirement}"
            beyond = Version(f"{max(current.major, NEWEST_MAJOR, _floor_major(requirement)) + 1}.0")
            assert not requirement.specifier.contains(beyond), (
                f"the MLflow range has no upper bound at the next major version: {requirement}"
            )
            assert requirement.specifier.contains(current, prereleases=True), (
                f"MLflow {current} is outside the declared range: {requirement}"
            )


def _no_crash(answer: Mapping[str, Any]) -> None:
    assert "crash" not in answer, f"the interpreter that loads the entry points crashed: {answer.get('crash')}"


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _is_extra(requirement: Requirement) -> bool:
    return requirement.marker is not None and "extra" in str(requirement.marker)


def _floor_major(requirement: Requirement) -> int:
    floors = (spec.version.replace(".*", "") for spec in requirement.specifier if "<" not in spec.operator)
    return max((Version(floor).major for floor in floors), default=0)


def _files(dist: Distribution) -> list[str]:
    """The distribution's files by RECORD; of an editable install, those of the folders that it adds to sys.path."""
    recorded = [str(path).replace(os.sep, "/") for path in dist.files or ()]
    found = [path for path in recorded if not path.endswith(".pth") and not path.startswith("..")]
    for path in recorded:
        if path.endswith(".pth"):
            for line in Path(str(dist.locate_file(path))).read_text().splitlines():
                root = Path(line.strip())
                if line.strip() and not line.startswith("import ") and root.is_dir():
                    found += [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]
    return found


def _top_level(dist: Distribution) -> set[str]:
    tops = {path.partition("/")[0] for path in _files(dist)}
    return {top.removesuffix(".py") for top in tops if not top.endswith(_NOT_PACKAGES)}
