"""Conformance of deployment targets (entry points `mlflow.deployments`).

The entry point names a module with `target_help`, `run_local` and exactly one subclass of
BaseDeploymentClient; MLflow's check is in mlflow/deployments/plugin_manager.py, the contract of the
client in the docstrings of mlflow/deployments/base.py.
"""

from __future__ import annotations

import inspect
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.local import LocalTracking
from mlflow_plugkit_testing.providers import must_not_raise, registered_in, required_arguments


class DeploymentClientConformance(LocalTracking):
    """The rules for a deployment target.

    Override `target`; for a target without an entry point also `plugin_module`:

        class TestDeployments(DeploymentClientConformance):
            target = "demo"
            target_uri = "demo:/here"
    """

    target: ClassVar[str] = ""
    """The name of the entry point."""
    target_uri: ClassVar[str] = ""
    """What a user gives to `get_deploy_client`; by default the target's name."""
    config: ClassVar[Mapping[str, Any]] = {}
    """What a user gives as `config` to `create_deployment`."""

    @property
    def plugin_module(self) -> Any:
        """The module under test. By default what the entry point `target` names."""
        from mlflow.deployments.interface import plugin_store

        entry_point = plugin_store.registry.get(self.target)
        if entry_point is None:
            pytest.fail(f"MLflow knows no deployment target {self.target!r}; is its distribution installed?")
        return entry_point.load() if hasattr(entry_point, "group") else entry_point

    @property
    def supports_update(self) -> bool:
        """Whether a deployment can be given another model."""
        return True

    @property
    def supports_endpoints(self) -> bool:
        """Whether the target has endpoints. Few do."""
        return False

    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        from mlflow.deployments.interface import plugin_store

        with registered_in(plugin_store.registry, self.target, self.plugin_module):
            yield

    @pytest.fixture
    def models(self, tracking_uri: str) -> tuple[str, str]:
        """The URIs of two real models, logged to a run; their predictions differ."""
        return log_model(1.0), log_model(-1.0)

    @pytest.fixture
    def client(self, tracking_uri: str) -> Any:
        """A new client, as users get it."""
        from mlflow.deployments import get_deploy_client

        return get_deploy_client(self.target_uri or self.target)

    @contextmanager
    def deployed(self, client: Any, model_uri: str) -> Iterator[str]:
        """The name of a new deployment, deleted afterwards."""
        name = new_name()
        try:
            client.create_deployment(name, model_uri, config=dict(self.config))
            yield name
        finally:
            client.delete_deployment(name)

    def test_module_has_what_mlflow_asks_for(self) -> None:
        """The entry point is a module (not a class) that has `target_help` and `run_local`."""
        module = self.plugin_module
        assert not inspect.isclass(module), f"the entry point names the class {module!r}; MLflow expects its module"
        missing = [name for name in ("target_help", "run_local") if not callable(getattr(module, name, None))]
        assert not missing, f"the plugin's module has no {missing}, which MLflow requires"

    def test_module_shows_one_client(self) -> None:
        """Exactly one subclass of BaseDeploymentClient is visible; an imported second one is an error, too."""
        from mlflow.deployments import BaseDeploymentClient

        classes = [c for _, c in inspect.getmembers(self.plugin_module, inspect.isclass)]
        clients = {c.__name__ for c in classes if issubclass(c, BaseDeploymentClient) and c is not BaseDeploymentClient}
        assert len(clients) == 1, f"the module shows the client classes {sorted(clients)}; MLflow accepts exactly one"

    def test_client_is_found_by_target(self) -> None:
        """`get_deploy_client(uri)` returns the client, which knows its URI and has connected nowhere."""
        from mlflow.deployments import get_deploy_client

        uri = self.target_uri or self.target
        with must_not_raise(f"get_deploy_client({uri!r}) failed"):
            client = get_deploy_client(uri)
        assert client is not None
        assert client.target_uri == uri, f"target_uri is {client.target_uri!r}: call super().__init__(target_uri)"

    def test_help_is_text(self) -> None:
        """`mlflow deployments help -t target` prints the text that `target_help()` returns."""
        from mlflow.deployments.interface import _target_help

        text = _target_help(self.target)
        assert isinstance(text, str), f"target_help() returned a {type(text).__name__}; MLflow prints it as text"
        assert self.target in text, f"the help does not show a target URI with {self.target!r}"

    def test_run_local_takes_mlflows_arguments(self) -> None:
        """MLflow calls `run_local(name, model_uri, flavor, config)` by position; the last two may be left out."""
        signature = inspect.signature(self.plugin_module.run_local)
        try:
            signature.bind("name", "models:/m/1", None, None)
        except TypeError as exc:
            raise AssertionError(f"run_local{signature} cannot be called as MLflow calls it: {exc}") from exc
        required = required_arguments(self.plugin_module.run_local)
        assert len(required) <= 2, f"run_local requires {required}; flavor and config are optional in MLflow"

    def test_created_deployment_predicts(self, client: Any, models: tuple[str, str]) -> None:
        """`create_deployment` blocks until inference is possible; predictions equal the model's own."""
        failed = must_not_raise("predict failed right after create_deployment returned")
        with self.deployed(client, models[0]) as name, failed:
            found = predictions_of(client.predict(name, sample()))
        assert_same(found, own_predictions(models[0]), "predict() of a data frame")

    def test_create_returns_the_name(self, client: Any, models: tuple[str, str]) -> None:
        """`create_deployment` returns a dictionary that holds the name."""
        name = new_name()
        try:
            created = client.create_deployment(name, models[0], config=dict(self.config))
        finally:
            client.delete_deployment(name)
        assert isinstance(created, dict), f"create_deployment returned {created!r}; MLflow expects a dictionary"
        assert created.get("name") == name, f"create_deployment returned {created!r}, which lacks 'name': {name!r}"

    def test_deployment_is_listed_and_described(self, client: Any, models: tuple[str, str]) -> None:
        """`list_deployments` and `get_deployment` give dictionaries that hold the name, in other clients, too."""
        from mlflow.deployments import get_deploy_client

        with self.deployed(client, models[0]) as name:
            for asked in (client, get_deploy_client(self.target_uri or self.target)):
                listed, described = asked.list_deployments(), asked.get_deployment(name)
                assert isinstance(listed, list), f"list_deployments returned a {type(listed).__name__}, not a list"
                assert name in [d["name"] for d in listed], "the deployment is not in list_deployments()"
                assert described["name"] == name, f"get_deployment returned {described!r} for {name!r}"

    def test_names_are_unique(self, client: Any, models: tuple[str, str]) -> None:
        """A second `create_deployment` of a name is refused, and the first one goes on with its own model."""
        with self.deployed(client, models[0]) as name:
            error = error_code_of(lambda: client.create_deployment(name, models[1], config=dict(self.config)))
            found = predictions_of(client.predict(name, sample()))
        assert error == "RESOURCE_ALREADY_EXISTS", f"a second deployment of the same name: {error}"
        assert_same(found, own_predictions(models[0]), "predict() after a refused second deployment")

    @pytest.mark.parametrize("method", ["get", "predict", "update"])
    def test_unknown_names_are_refused(self, client: Any, models: tuple[str, str], method: str) -> None:
        """A name that nobody deployed is RESOURCE_DOES_NOT_EXIST."""
        name = new_name()
        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: client.get_deployment(name),
            "predict": lambda: client.predict(name, sample()),
            "update": lambda: client.update_deployment(name, models[1]),
        }
        if method == "update" and not self.supports_update:
            pytest.skip("the target cannot update")
        error = error_code_of(calls[method])
        assert error == "RESOURCE_DOES_NOT_EXIST", f"{method} of a name that does not exist: {error}"

    def test_update_changes_the_model(self, client: Any, models: tuple[str, str]) -> None:
        """After `update_deployment(name, model_uri)` the new model predicts."""
        if not self.supports_update:
            pytest.skip("the target cannot update")
        with self.deployed(client, models[0]) as name:
            client.update_deployment(name, models[1])
            found = predictions_of(client.predict(name, sample()))
        assert_same(found, own_predictions(models[1]), "predict() after update_deployment")

    def test_delete_removes(self, client: Any, models: tuple[str, str]) -> None:
        """A deleted deployment is not listed, not described, and does not predict; its name is free."""
        with self.deployed(client, models[0]) as name:
            client.delete_deployment(name)
            assert name not in [d["name"] for d in client.list_deployments()], "a deleted deployment is still listed"
            assert error_code_of(lambda: client.get_deployment(name)), "a deleted deployment is still described"
            assert error_code_of(lambda: client.predict(name, sample())), "a deleted deployment still predicts"
            with must_not_raise("the name of a deleted deployment cannot be used again"):
                client.create_deployment(name, models[1], config=dict(self.config))

    def test_delete_can_be_repeated(self, client: Any) -> None:
        """Deleting what does not exist raises nothing (BaseDeploymentClient.delete_deployment)."""
        with must_not_raise("delete_deployment is not idempotent"):
            client.delete_deployment(new_name())

    def test_failed_create_leaves_nothing(self, client: Any, tracking_uri: str) -> None:
        """A model that does not exist is an MlflowException, and no half-made deployment stays."""
        name = new_name()
        error = error_code_of(lambda: client.create_deployment(name, f"runs:/{'0' * 32}/model"))
        left = name in [d["name"] for d in client.list_deployments()]
        client.delete_deployment(name)
        assert error, "create_deployment of a model that does not exist raised no error"
        assert not error.startswith("no MlflowException"), f"a model that does not exist: {error}"
        assert not left, "the failed create_deployment left a deployment behind"

    @pytest.mark.parametrize("method", ["create_endpoint", "list_endpoints", "get_endpoint", "delete_endpoint"])
    def test_endpoints_work_or_are_refused(self, client: Any, method: str) -> None:
        """Endpoints are made, shown and deleted, or refused by an MlflowException where the target has none."""
        if not self.supports_endpoints:
            error = error_code_of(getattr(client, method), *([] if method == "list_endpoints" else [new_name()]))
            assert error, f"{method} returned, although the suite declares that there are no endpoints"
            assert not error.startswith("no MlflowException"), f"{method}: {error}"
            return
        name = new_name()
        client.create_endpoint(name)
        try:
            assert client.get_endpoint(name)["name"] == name, "get_endpoint does not return the created endpoint"
            assert name in [e["name"] for e in client.list_endpoints()], "list_endpoints lacks the created endpoint"
        finally:
            client.delete_endpoint(name)
        assert name not in [e["name"] for e in client.list_endpoints()], "delete_endpoint left the endpoint"


def new_name() -> str:
    """A name that no deployment has: lower case and short, as most targets ask."""
    return f"plugkit-{uuid.uuid4().hex[:8]}"


def sample() -> Any:
    """The data frame that the rules predict on."""
    import pandas

    return pandas.DataFrame({"a": [0.0, 1.0, 2.5], "b": [1.0, -3.0, 0.25]})


def log_model(sign: float) -> str:
    """Log a real model to a run of the current store; returns its `runs:/` URI."""
    import mlflow

    with mlflow.start_run() as run:
        mlflow.log_artifacts(_saved_model(sign).name, "model")
    return f"runs:/{run.info.run_id}/model"


@lru_cache(maxsize=2)
def _saved_model(sign: float) -> tempfile.TemporaryDirectory[str]:
    import mlflow
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    folder = tempfile.TemporaryDirectory(prefix="mlflow-plugkit-")
    data = sample()
    estimator = LinearRegression().fit(data, sign * (data["a"] - 2 * data["b"]))
    signature = infer_signature(data, estimator.predict(data))
    mlflow.sklearn.save_model(estimator, folder.name, signature=signature, pip_requirements=["scikit-learn"])
    return folder


def own_predictions(model_uri: str) -> Any:
    """What the model itself predicts."""
    import mlflow

    return mlflow.pyfunc.load_model(model_uri).predict(sample())


def predictions_of(answer: Any) -> Any:
    """The array in what `predict` returned: a PredictionsResponse, or what `mlflow.pyfunc` models return."""
    import numpy

    found = answer.get_predictions() if hasattr(answer, "get_predictions") else answer
    return numpy.asarray(found, dtype=float).ravel()


def assert_same(found: Any, wanted: Any, what: str) -> None:
    """Compare predictions."""
    assert list(found) == pytest.approx(list(wanted)), f"{what} gives {list(found)}, the model itself {list(wanted)}"


def error_code_of(call: Callable[..., Any], *args: Any) -> str | None:
    """The error code of the MlflowException that the call raises, None for none, a sentence for another one."""
    from mlflow.exceptions import MlflowException

    try:
        call(*args)
    except MlflowException as exc:
        return str(exc.error_code)
    except Exception as exc:  # noqa: BLE001 # the rules judge whatever comes
        return f"no MlflowException but {exc!r}"
    return None
