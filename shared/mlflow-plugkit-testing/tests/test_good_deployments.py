"""A minimal correct deployment target passes every rule."""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow_plugkit_testing.deployments import DeploymentClientConformance

sys.path.append(str(Path(__file__).parent / "broken"))


class TestPlainTarget(DeploymentClientConformance):
    target = "plain"

    @property
    def plugin_module(self):
        import plain_deployments

        return plain_deployments


class TestTargetWithEndpoints(TestPlainTarget):
    """Has endpoints, cannot update, and takes a URI with a path."""

    target_uri = "plain:/here"
    supports_endpoints = True
    supports_update = False

    @property
    def plugin_module(self):
        import types

        import plain_deployments as plain

        class Client(plain.PlainClient):
            endpoints = {}

            def create_endpoint(self, name, config=None):
                self.endpoints[name] = {"name": name}
                return self.endpoints[name]

            def get_endpoint(self, endpoint):
                return self.endpoints[endpoint]

            def list_endpoints(self):
                return list(self.endpoints.values())

            def delete_endpoint(self, endpoint):
                self.endpoints.pop(endpoint, None)

        return types.SimpleNamespace(Client=Client, run_local=plain.run_local, target_help=plain.target_help)
