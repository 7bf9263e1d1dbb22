"""Endpoints: one address in front of several deployments; supervised as a deployment is, with a router for a model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlflow_local_deploy import operations, revision
from mlflow_local_deploy.config import Config
from mlflow_local_deploy.counting import TARGETS
from mlflow_local_deploy.keys import key_for
from mlflow_local_deploy.operations import Home
from mlflow_local_deploy.place import Place, Spec
from mlflow_local_deploy.settings import LocalSettings
from mlflow_plugkit.errors import mlflow_error


class Endpoints:
    """The endpoints of a state folder; see `LocalDeploymentClient`."""

    def __init__(self, home: Home, settings: LocalSettings) -> None:
        self._home, self._settings = home, settings

    def create(self, name: str, config: Any = None) -> dict[str, Any]:
        wanted = self._checked(Config.read(config, "endpoint"))
        place = self._home.place("endpoint", name)
        self._home.make()
        with self._home.lock("endpoint", name):
            operations.begin(place)
            try:
                first = revision.new_id(1)
                auth = revision.hashed(key_for(wanted, self._settings))
                revision.write_router(place, first, wanted, auth, self._home.folder("deployment"))
                shown = _shown(wanted, list(wanted.traffic), protected=auth is not None)
                operations.apply(place, operations.spec_of(place, "endpoint", wanted, 1, first, shown))
            except BaseException:
                operations.remove(place)
                raise
        return self.get(name)

    def update(self, name: str, config: Any = None) -> dict[str, Any]:
        with self._home.lock("endpoint", name):
            place, spec = self._home.existing("endpoint", name)
            before = _config_of(spec)
            wanted = self._checked(Config.read(config, "endpoint", before))
            if (wanted.host, wanted.port) != (before.host, before.port):
                raise mlflow_error("An endpoint keeps its address. Create another one.")
            self._change(place, spec, wanted, spec.shown["deployments"])
        return self.get(name)

    def attach(self, name: str, deployment: str, weight: float | None) -> None:
        """Take a deployment in. The first one gets all the traffic, a later one none unless a weight is given."""
        with self._home.lock("endpoint", name):
            place, spec = self._home.existing("endpoint", name)
            before = _config_of(spec)
            if weight is None:
                weight = before.traffic.get(deployment, 0.0 if before.traffic else 100.0)
            members = [*spec.shown["deployments"], deployment]
            self._change(place, spec, replace(before, traffic={**before.traffic, deployment: weight}), members)

    def detach(self, deployment: str) -> None:
        """Take a deployment out of every endpoint."""
        for name in self.of(deployment):
            with self._home.lock("endpoint", name):
                place, spec = self._home.existing("endpoint", name)
                before = _config_of(spec)
                traffic, shadow = _without(before.traffic, deployment), _without(before.shadow, deployment)
                members = [m for m in spec.shown["deployments"] if m != deployment]
                self._change(place, spec, replace(before, traffic=traffic, shadow=shadow), members)

    def delete(self, name: str) -> None:
        place = self._home.place("endpoint", name)
        if self._home.root.exists():
            with self._home.lock("endpoint", name):
                operations.remove(place)

    def all(self) -> list[dict[str, Any]]:
        return [_described(place, spec) for place, spec in self._home.all("endpoint")]

    def get(self, name: str) -> dict[str, Any]:
        return _described(*self._home.existing("endpoint", name))

    def members(self, name: str) -> set[str]:
        """The deployments of an endpoint, with and without traffic."""
        return _members(self._home.existing("endpoint", name)[1])

    def of(self, deployment: str) -> list[str]:
        """The endpoints that a deployment is in."""
        return [place.name for place, spec in self._home.all("endpoint") if deployment in _members(spec)]

    def _checked(self, wanted: Config) -> Config:
        named = {*wanted.traffic, *wanted.shadow}
        for deployment in named:
            self._home.existing("deployment", deployment)
        if len(named) > TARGETS:
            raise mlflow_error(f"An endpoint has at most {TARGETS} deployments; these are {len(named)}.")
        if any(share > 100 for share in wanted.shadow.values()):
            raise mlflow_error("The shadow's shares are percents, at most 100.")
        return wanted

    def _change(self, place: Place, spec: Spec, wanted: Config, members: list[str]) -> None:
        about = place.revision(spec.revision)
        key = key_for(wanted, self._settings)
        auth = about["auth"] if key is None and wanted.api_key != "none" else revision.changed(about["auth"], key)
        chosen = revision.new_id(spec.generation + 1)
        try:
            revision.write_router(place, chosen, wanted, auth, self._home.folder("deployment"))
            shown = _shown(wanted, members, protected=auth is not None)
            operations.apply(place, operations.spec_of(place, "endpoint", wanted, spec.generation + 1, chosen, shown))
        except BaseException:
            shutil.rmtree(place.revisions / chosen, ignore_errors=True)
            raise
        revision.collect(place, chosen)


def _members(spec: Spec) -> set[str]:
    return {*spec.shown["deployments"], *spec.shown["traffic"], *spec.shown["shadow"]}


def _without(weights: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: weight for key, weight in weights.items() if key != name}


def _shown(wanted: Config, members: list[str], *, protected: bool) -> dict[str, Any]:
    return {
        "traffic": wanted.traffic,
        "shadow": wanted.shadow,
        "deployments": sorted({*members, *wanted.traffic}),
        "protected": protected,
        "config": wanted.shown("endpoint"),
    }


def _config_of(spec: Spec) -> Config:
    weights = {"traffic": spec.shown["traffic"], "shadow": spec.shown["shadow"]}
    return Config.read({**spec.shown["config"], **weights}, "endpoint")


def _described(place: Place, spec: Spec) -> dict[str, Any]:
    operations.revive(place, spec)
    return operations.describe(place, spec)
