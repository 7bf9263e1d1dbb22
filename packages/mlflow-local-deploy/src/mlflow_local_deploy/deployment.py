"""The deployment target `local`: what the entry point names.

MLflow loads this module, not a class: it looks for `run_local`, `target_help` and the one `BaseDeploymentClient`
subclass that is visible here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException

from mlflow_local_deploy import calling, operations, revision
from mlflow_local_deploy.config import Config, keys_table
from mlflow_local_deploy.endpoints import Endpoints
from mlflow_local_deploy.keys import key_for
from mlflow_local_deploy.operations import Home
from mlflow_local_deploy.place import Place, Spec
from mlflow_local_deploy.settings import LocalSettings
from mlflow_plugkit.errors import mlflow_error

FLAVOR = "python_function"
#: Keys whose change needs no other workers.
COUNTS = {"workers", "standby", "start_seconds", "hang_seconds"}


class LocalDeploymentClient(BaseDeploymentClient):
    """Deployments on this machine, of the user whose state folder it is.

    Nothing happens here: each operation reads the state folder, so that all clients see the same.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)  # type: ignore[no-untyped-call] # MLflow leaves it untyped
        self._settings = LocalSettings.of_target(target_uri)
        self._home = Home(self._settings.root)
        self._endpoints = Endpoints(self._home, self._settings)

    def create_deployment(
        self, name: str, model_uri: str, flavor: str | None = None, config: Any = None, endpoint: str | None = None
    ) -> dict[str, Any]:
        """Serve a model; returns when it answers.

        Raises:
            MlflowException: `RESOURCE_ALREADY_EXISTS`; what the download raises; `INTERNAL_ERROR` with the end of the
                worker's log where the model cannot be loaded. Nothing is left behind then.
        """
        _check_flavor(flavor)
        wanted = Config.read(config, "deployment")
        weight = _own_weight(wanted, name, endpoint)
        place = self._home.place("deployment", name)
        if endpoint is not None:
            self._home.existing("endpoint", endpoint)
        self._home.make()
        with self._home.lock("deployment", name):
            operations.begin(place)
            try:
                first = revision.new_id(1)
                model = revision.download(place, first, model_uri)
                auth = revision.hashed(key_for(wanted, self._settings))
                manager = revision.write_model(place, first, wanted, auth, model, self._manager(wanted))
                shown = _shown(wanted, model_uri, manager, protected=auth is not None)
                operations.apply(place, operations.spec_of(place, "deployment", wanted, 1, first, shown))
            except BaseException:
                operations.remove(place)
                raise
        if endpoint is not None:
            self._endpoints.attach(endpoint, name, weight)
        return self.get_deployment(name)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Any = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Serve another model, or with other settings; returns when only that answers. No request fails meanwhile.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; as for `create_deployment` where the new model cannot be served.
                The old one goes on then.
        """
        _check_flavor(flavor)
        self._in_endpoint(name, endpoint)
        with self._home.lock("deployment", name):
            place, spec = self._home.existing("deployment", name)
            before = _config_of(spec)
            wanted = Config.read(config, "deployment", before)
            weight = _own_weight(wanted, name, endpoint)
            if (wanted.host, wanted.port) != (before.host, before.port):
                raise mlflow_error("A deployment keeps its address. Create another one, or put an endpoint in front.")
            self._change(place, spec, wanted, model_uri)
        if endpoint is not None and weight is not None:
            self._endpoints.attach(endpoint, name, weight)
        return self.get_deployment(name)

    def _change(self, place: Place, spec: Spec, wanted: Config, model_uri: str | None) -> None:
        about = place.revision(spec.revision)
        key = key_for(wanted, self._settings)
        auth = about["auth"] if key is None and wanted.api_key != "none" else revision.changed(about["auth"], key)
        before, after = _config_of(spec).shown(), wanted.shown()
        changed = {name for name in after if after[name] != before.get(name)}
        fresh = model_uri is not None or auth != about["auth"] or bool(changed - COUNTS)
        chosen = revision.new_id(spec.generation + 1) if fresh else spec.revision
        manager = spec.shown["env_manager"]
        try:
            if fresh:
                model = revision.model_of(about) if model_uri is None else revision.download(place, chosen, model_uri)
                wish = self._manager(wanted) if model_uri is not None or "env_manager" in changed else manager
                manager = revision.write_model(place, chosen, wanted, auth, model, wish)
            shown = _shown(wanted, model_uri or spec.shown["model_uri"], manager, protected=auth is not None)
            after_it = operations.spec_of(place, "deployment", wanted, spec.generation + 1, chosen, shown)
            operations.apply(place, after_it)
        except BaseException:
            if fresh:
                shutil.rmtree(place.revisions / chosen, ignore_errors=True)
            raise
        revision.collect(place, chosen)

    def scale_deployment(self, name: str, workers: int, standby: int | None = None) -> dict[str, Any]:
        """Change the number of workers, and of those that stand by; no request fails meanwhile."""
        return self.update_deployment(
            name, config={"workers": workers, **({} if standby is None else {"standby": standby})}
        )

    def delete_deployment(self, name: str, config: Any = None, endpoint: str | None = None) -> None:
        """End and remove a deployment, letting it answer what it has begun. Endpoints forget it first."""
        place = self._home.place("deployment", name)
        if place.spec() is not None:
            self._in_endpoint(name, endpoint)
        self._endpoints.detach(name)
        if self._home.root.exists():
            with self._home.lock("deployment", name):
                operations.remove(place)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """All deployments, or those of an endpoint. What should run and does not is started again."""
        members = None if endpoint is None else self._endpoints.members(endpoint)
        return [
            self._described(place, spec)
            for place, spec in self._home.all("deployment")
            if members is None or place.name in members
        ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """How a deployment is: `status`, `url`, process ids, and what it serves."""
        self._in_endpoint(name, endpoint)
        return self._described(*self._home.existing("deployment", name))

    def predict(self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None) -> Any:
        """Predictions as a `PredictionsResponse`; what a chat model answers is in it as it is."""
        place, spec = self._asked(deployment_name, endpoint)
        found = self._call(place, spec, "/invocations", inputs)
        if isinstance(found, dict):
            return PredictionsResponse(found)
        return PredictionsResponse({"predictions": found})

    def predict_stream(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> Iterator[Any]:
        """The chunks of a model that has `predict_stream`, as they come.

        Raises:
            MlflowException: `NOT_IMPLEMENTED` for a model that has none.
        """
        place, spec = self._asked(deployment_name, endpoint)
        body = calling.payload(inputs)
        self._awake(place, spec)
        return calling.stream(place, "/invocations/stream", body, _config_of(spec).timeout_seconds)

    def explain(self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None) -> Any:
        """What the method `explain` of the model's PythonModel says.

        Raises:
            MlflowException: `NOT_IMPLEMENTED` for a model that has none.
        """
        place, spec = self._asked(deployment_name, endpoint)
        return self._call(place, spec, "/explain", df)["explanations"]

    def logs(self, name: str, lines: int = 100) -> str:
        """The last lines of the supervisor's and of each worker's log."""
        place, _ = self._home.existing("deployment", name)
        return operations.log_text(place, lines)

    def create_endpoint(self, name: str, config: Any = None) -> dict[str, Any]:
        """Put an endpoint in front of deployments: `config={"traffic": {"a": 90, "b": 10}, "shadow": {"c": 100}}`."""
        return self._endpoints.create(name, config)

    def update_endpoint(self, endpoint: str, config: Any = None) -> dict[str, Any]:
        """Share traffic out otherwise, or change other settings; no request fails meanwhile."""
        return self._endpoints.update(endpoint, config)

    def delete_endpoint(self, endpoint: str) -> None:
        """Remove an endpoint; its deployments stay."""
        self._endpoints.delete(endpoint)

    def list_endpoints(self) -> list[dict[str, Any]]:
        """All endpoints. What should run and does not is started again."""
        return self._endpoints.all()

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """How an endpoint is: `status`, `url`, `traffic`, `shadow`."""
        return self._endpoints.get(endpoint)

    def _manager(self, wanted: Config) -> str:
        return (
            Config.read({"env_manager": wanted.env_manager or self._settings.env_manager}, "deployment").env_manager
            or ""
        )

    def _described(self, place: Place, spec: Spec) -> dict[str, Any]:
        operations.revive(place, spec)
        return {**operations.describe(place, spec), "endpoints": self._endpoints.of(place.name)}

    def _in_endpoint(self, name: str, endpoint: str | None) -> None:
        if endpoint is not None and name not in self._endpoints.members(endpoint):
            raise mlflow_error(f"The endpoint {endpoint!r} has no deployment {name!r}.", "RESOURCE_DOES_NOT_EXIST")

    def _asked(self, name: str | None, endpoint: str | None) -> tuple[Place, Spec]:
        if (name is None) == (endpoint is None):
            raise mlflow_error("Name the deployment or the endpoint that is to answer, one of the two.")
        if name is not None:
            return self._home.existing("deployment", name)
        return self._home.existing("endpoint", str(endpoint))

    def _call(self, place: Place, spec: Spec, path: str, inputs: Any) -> Any:
        body = calling.payload(inputs)
        until = time.monotonic() + calling.RECOVERY_SECONDS
        while True:
            self._awake(place, spec)
            try:
                return calling.call(place, path, body, _config_of(spec).timeout_seconds)
            except MlflowException as exc:
                if not calling.was_refused(exc) or time.monotonic() > until:
                    raise
            time.sleep(operations.LOOK_SECONDS)

    def _awake(self, place: Place, spec: Spec) -> None:
        if operations.is_stopped(spec):
            raise mlflow_error(
                f"{spec.name!r} is stopped. Start it: mlflow-local-deploy start {spec.name}", "INVALID_STATE"
            )
        if operations.ensure_supervisor(place):
            operations.wait(place, spec)


def _shown(wanted: Config, model_uri: str, manager: str, *, protected: bool) -> dict[str, Any]:
    return {
        "flavor": FLAVOR,
        "model_uri": model_uri,
        "env_manager": manager,
        "protected": protected,
        "config": wanted.shown(),
    }


def _config_of(spec: Spec) -> Config:
    return Config.read(spec.shown["config"], spec.kind)


def _own_weight(wanted: Config, name: str, endpoint: str | None) -> float | None:
    if not wanted.traffic:
        return None
    if endpoint is None:
        raise mlflow_error("A deployment has 'traffic' in an endpoint: name it, or update the endpoint's traffic.")
    if set(wanted.traffic) not in ({""}, {name}):
        raise mlflow_error(f"A deployment's 'traffic' is its own weight, such as traffic=10; this is {wanted.traffic}.")
    return next(iter(wanted.traffic.values()))


def _check_flavor(flavor: str | None) -> None:
    if flavor not in (None, FLAVOR):
        raise mlflow_error(
            f"MLflow's scoring server serves the flavor {FLAVOR!r}, not {flavor!r}. Leave the flavor out."
        )


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Any = None) -> dict[str, Any]:
    """Deploy locally, which is what this target does anyway: the same as `create_deployment`."""
    return LocalDeploymentClient("local").create_deployment(name, model_uri, flavor, config)


def target_help() -> str:
    """What `mlflow deployments help -t local` prints."""
    return f"""\
Serves models on this machine with MLflow's scoring server.

Target URI: local, or local:/path/of/the/state/folder (MLFLOW_LOCAL_DEPLOY_FOLDER, by default ~/.mlflow-local-deploy).

    mlflow deployments create -t local -m models:/churn/3 --name churn -C workers=2
    mlflow deployments update -t local -m models:/churn/4 --name churn
    mlflow-local-deploy create-endpoint e -C traffic=churn=90,churn-next=10

MLFLOW_LOCAL_DEPLOY_API_KEY_FILE, or MLFLOW_LOCAL_DEPLOY_API_KEY, gives the API key that callers must show.
mlflow-local-deploy scales, stops, starts and shows logs. Configuration (-C key=value):

{keys_table()}"""
