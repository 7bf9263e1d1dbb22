"""An environment in which almost everything is wrong, and what the doctor must say of it."""

from __future__ import annotations

from importlib.metadata import version

from packaging.version import Version
from seeds import GOOD_RANGE, REPOSITORY, Seeds

MLFLOW = Version(version("mlflow-skinny"))
FACTORY = "def make(store_uri=None, artifact_uri=None, tracking_uri=None):\n    return None\n"

HANGS = "import threading\nthreading.Event().wait()\n"
BUSY = "import time\nend = time.perf_counter() + 0.6\nwhile time.perf_counter() < end:\n    pass\n"
HEADERS = """
    class Provider:
        def in_context(self):
            return True
        def request_headers(self):
            return {"X-Seed": "HEADERSECRET", "Authorization": "Bearer HEADERSECRET"}
"""
PROVIDERS = """
    class NeedsArguments:
        def __init__(self, settings):
            self.settings = settings
    class Raises:
        def __init__(self):
            raise ValueError("no configuration")
    class Incomplete:
        def get_name(self):
            return "incomplete"
"""
SIGNATURES = """
    def tracking(store_uri):
        return None
    def registry(uri):
        return None
    class Repository:
        def __init__(self, artifact_uri):
            self.artifact_uri = artifact_uri
    def backend(config):
        return None
"""
DEPLOYMENT = """
    from mlflow.deployments import BaseDeploymentClient
    class One(BaseDeploymentClient):
        pass
    class Two(One):
        pass
    def run_local(*args, **kwargs):
        return None
    def target_help():
        return ""
"""
DATASET = """
    from __future__ import annotations
    from mlflow.data.dataset import Dataset
    def from_seed(data, name=None, digest=None) -> Dataset:
        return None
    def from_nothing(data) -> Dataset:
        return None
"""
STORE = """
    from mlflow.store.tracking.file_store import FileStore
    class Store(FileStore):
        def __init__(self, store_uri=None, artifact_uri=None):
            super().__init__(store_uri, artifact_uri)
"""


def seed_loading(seeds: Seeds, port: int) -> None:
    """Entry points that cannot be loaded, each in its own way."""
    group = "artifact_repository"
    connect = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)\n"
    seeds.add("seed-import", {group: {"seedimport": "seed_import:R"}}, {"seed_import.py": "import no_such_sdk"})
    raising = "import os\nraise RuntimeError('refused: ' + os.environ['MLFLOW_TRACKING_TOKEN'])"
    seeds.add("seed-raises", {group: {"seedraises": "seed_raises:R"}}, {"seed_raises.py": raising})
    seeds.add("seed-attribute", {group: {"seedattribute": "seed_attribute:R"}}, {"seed_attribute.py": "S = 1"})
    seeds.add("seed-malformed", {group: {"seedmalformed": "not a reference"}})
    seeds.add("seed-hangs", {group: {"seedhangs": "seed_hangs:R"}}, {"seed_hangs.py": HANGS})
    seeds.add("seed-kills", {group: {"seedkills": "seed_kills:R"}}, {"seed_kills.py": "import os\nos._exit(3)"})
    seeds.add("seed-network", {group: {"seednetwork": "seed_network:R"}}, {"seed_network.py": connect})
    tolerant = (
        f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 5)\nexcept OSError:\n    pass\n"
    )
    source = {"seed_connects.py": tolerant + "\ndef make(artifact_uri, tracking_uri=None, registry_uri=None): ...\n"}
    seeds.add("seed-connects", {group: {"seedconnects": "seed_connects:make"}}, source)
    source = {"seed_slow.py": BUSY + "def make(artifact_uri, tracking_uri=None, registry_uri=None): ...\n"}
    seeds.add("seed-slow", {group: {"seedslow": "seed_slow:make"}}, source)


def seed_contracts(seeds: Seeds) -> None:
    """Objects that are not what MLflow expects in their group."""
    seeds.add(
        "seed-signatures",
        {
            "tracking_store": {"seedsignature": "seed_signatures:tracking"},
            "model_registry_store": {"seedsignature": "seed_signatures:registry"},
            "scorer_store": {"seedsignature": "seed_signatures:registry"},
            "artifact_repository": {"seedsignature": "seed_signatures:Repository"},
            "project_backend": {"seedsignature": "seed_signatures:backend"},
        },
        {"seed_signatures.py": SIGNATURES},
    )
    seeds.add(
        "seed-providers",
        {
            "run_context_provider": {"needs": "seed_providers:NeedsArguments"},
            "request_header_provider": {"raises": "seed_providers:Raises"},
            "request_auth_provider": {"incomplete": "seed_providers:Incomplete"},
        },
        {"seed_providers.py": PROVIDERS},
    )
    targets = {"seedtwo": "seed_deployment", "seedclass": "seed_deployment:One"}
    seeds.add("seed-deployment", {"deployments": targets}, {"seed_deployment.py": DEPLOYMENT})
    flask_app = "from flask import Flask\napp = Flask(__name__)\ndef create_app() -> Flask:\n    return app\n"
    apps = {"seedapp": "seed_app:app", "seedfactory": "seed_app:create_app"}
    seeds.add("seed-app", {"app": apps}, {"seed_app.py": flask_app})
    constructors = {
        "from_seed": "seed_dataset:from_seed",
        "from_nothing": "seed_dataset:from_nothing",
        "make_seed": "seed_dataset:from_seed",
    }
    seeds.add("seed-dataset", {"dataset_constructor": constructors}, {"seed_dataset.py": DATASET})
    groups = ("tracking_store", "model_registry_store", "scorer_store")
    source = {"seed_filestore.py": STORE + "    def scorers(tracking_uri): ...\n    def registry(store_uri): ...\n"}
    objects = dict(zip(groups, ("Store", "registry", "scorers"), strict=True))
    stores = {g: {"seedfile": f"seed_filestore:{o}"} for g, o in objects.items()}
    seeds.add("seed-filestore", stores, source)


def seed_names(seeds: Seeds) -> None:
    """Names that clash, shadow, cannot be reached or lack their twin."""
    for letter in "ab":
        entry = {"artifact_repository": {"seedtwice": f"seed_twice_{letter}:Repository"}}
        seeds.add(f"seed-twice-{letter}", entry, {f"seed_twice_{letter}.py": REPOSITORY})
        header = {"request_header_provider": {f"seed{letter}": f"seed_header_{letter}:Provider"}}
        seeds.add(f"seed-header-{letter}", header, {f"seed_header_{letter}.py": HEADERS})
    seeds.add("seed-alone", {"tracking_store": {"seedalone": "seed_alone:make"}}, {"seed_alone.py": FACTORY})
    names = ("s3", "mssql+pyodbc", "sqlitefoo", "SeedUpper", "seed_underscore")
    entries = {
        "artifact_repository": dict.fromkeys(names, "seed_names:Repository"),
        "project_backend": {"local": "seed_names:Backend"},
    }
    seeds.add("seed-names", entries, {"seed_names.py": REPOSITORY + "    class Backend:\n        pass\n"})


def seed_metadata(seeds: Seeds) -> None:
    """Ranges, requirements and packages; the plugins themselves are good."""
    cases = {
        "seed-outside": (("mlflow-skinny>=1,<2",), {}),
        "seed-norange": ((), {}),
        "seed-nobound": (("mlflow>=2",), {}),
        "seed-requires": (
            ("mlflow-skinny>=2.22,<4", "no-such-distribution", "packaging<1", "absent; extra == 'x'"),
            {},
        ),
        "seed-general": (GOOD_RANGE, {"plugin/__init__.py": ""}),
        "seed-shared-a": (GOOD_RANGE, {"seed_shared/__init__.py": "", "seed_space/a.py": ""}),
        "seed-shared-b": (GOOD_RANGE, {"seed_shared/__init__.py": "", "seed_space/b.py": ""}),
    }
    for name, (requires, modules) in cases.items():
        module = name.replace("-", "_")
        entry = {"artifact_repository": {name: f"{module}:Repository"}}
        seeds.add(name, entry, {f"{module}.py": REPOSITORY, **modules}, requires=requires)


def expected() -> set[tuple[str, str]]:
    """Every (finding, subject) of the faulty environment but `slow-import`, which depends on the machine."""
    artifact = "mlflow.artifact_repository"
    found = {
        ("entry-point-not-importable", f"seed-import: {artifact} 'seedimport'"),
        ("entry-point-raises", f"seed-raises: {artifact} 'seedraises'"),
        ("entry-point-attribute-missing", f"seed-attribute: {artifact} 'seedattribute'"),
        ("entry-point-malformed", f"seed-malformed: {artifact} 'seedmalformed'"),
        ("entry-point-hangs", f"seed-hangs: {artifact} 'seedhangs'"),
        ("entry-point-kills-python", f"seed-kills: {artifact} 'seedkills'"),
        ("entry-point-needs-network", f"seed-network: {artifact} 'seednetwork'"),
        ("connects-on-import", f"seed-connects: {artifact} 'seedconnects'"),
        ("factory-signature", "seed-signatures: mlflow.tracking_store 'seedsignature'"),
        ("factory-signature", "seed-signatures: mlflow.model_registry_store 'seedsignature'"),
        ("factory-signature", "seed-signatures: mlflow.scorer_store 'seedsignature'"),
        ("factory-signature", "seed-signatures: mlflow.project_backend 'seedsignature'"),
        ("artifact-repository-signature", f"seed-signatures: {artifact} 'seedsignature'"),
        ("provider-constructor", "seed-providers: mlflow.run_context_provider 'needs'"),
        ("provider-constructor", "seed-providers: mlflow.request_header_provider 'raises'"),
        ("provider-methods-missing", "seed-providers: mlflow.request_auth_provider 'incomplete'"),
        ("deployment-plugin-shape", "seed-deployment: mlflow.deployments 'seedtwo'"),
        ("deployment-plugin-shape", "seed-deployment: mlflow.deployments 'seedclass'"),
        ("dataset-constructor-refused", "seed-dataset: mlflow.dataset_constructor 'from_seed'"),
        ("dataset-constructor-refused", "seed-dataset: mlflow.dataset_constructor 'from_nothing'"),
        ("dataset-constructor-refused", "seed-dataset: mlflow.dataset_constructor 'make_seed'"),
        ("name-claimed-twice", f"{artifact} 'seedtwice'"),
        ("shadows-builtin", f"seed-names: {artifact} 's3'"),
        ("unreachable-name", f"seed-names: {artifact} 'mssql+pyodbc'"),
        ("unreachable-name", f"seed-names: {artifact} 'sqlitefoo'"),
        ("unreachable-name", f"seed-names: {artifact} 'SeedUpper'"),
        ("unreachable-name", f"seed-names: {artifact} 'seed_underscore'"),
        ("unreachable-name", "seed-names: mlflow.project_backend 'local'"),
        ("registry-twin-missing", "seed-alone: mlflow.tracking_store 'seedalone'"),
        ("header-set-twice", "header x-seed"),
        ("header-set-twice", "header authorization"),
        ("mlflow-outside-range", "seed-outside"),
        ("mlflow-range-undeclared", "seed-norange"),
        ("mlflow-range-undeclared", "seed-nobound"),
        ("requirement-unsatisfied", "seed-requires"),
        ("package-name-too-general", "seed-general"),
        ("package-shipped-twice", "package seed_shared"),
        ("secret-in-uri", "MLFLOW_TRACKING_URI"),
        ("secret-in-uri", "_MLFLOW_SERVER_ARTIFACT_ROOT"),
        ("uri-scheme-unknown", "MLFLOW_REGISTRY_URI"),
        ("uri-scheme-unknown", "_MLFLOW_SERVER_ARTIFACT_ROOT"),
        ("netrc-wins", "MLFLOW_TRACKING_URI"),
    }
    if Version("3.4") <= MLFLOW:
        found.add(("scorer-twin-missing", "seed-alone: mlflow.tracking_store 'seedalone'"))
    if Version("3.3") <= MLFLOW:
        found |= {("app-not-asgi", f"seed-app: mlflow.app {n!r}") for n in ("seedapp", "seedfactory")}
    if Version("3.14") <= MLFLOW:
        found.add(("file-store-refused", "seed-filestore: mlflow.tracking_store 'seedfile'"))
    return found
