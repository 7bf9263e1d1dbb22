"""A minimal deployment target that keeps every rule; the broken ones change one thing each."""

from __future__ import annotations

import mlflow
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse

from mlflow_plugkit.errors import mlflow_error

DEPLOYED = {}


class PlainClient(BaseDeploymentClient):
    def create_deployment(self, name, model_uri, flavor=None, config=None, endpoint=None):
        if name in DEPLOYED:
            raise mlflow_error(f"There is a deployment {name} already.", "RESOURCE_ALREADY_EXISTS")
        DEPLOYED[name] = mlflow.pyfunc.load_model(model_uri)
        return {"name": name, "flavor": "python_function"}

    def update_deployment(self, name, model_uri=None, flavor=None, config=None, endpoint=None):
        self.find(name)
        DEPLOYED[name] = mlflow.pyfunc.load_model(model_uri)

    def delete_deployment(self, name, config=None, endpoint=None):
        DEPLOYED.pop(name, None)

    def list_deployments(self, endpoint=None):
        return [{"name": name} for name in DEPLOYED]

    def get_deployment(self, name, endpoint=None):
        self.find(name)
        return {"name": name}

    def predict(self, deployment_name=None, inputs=None, endpoint=None):
        return PredictionsResponse(predictions=self.find(deployment_name).predict(inputs).tolist())

    def find(self, name):
        if name not in DEPLOYED:
            raise mlflow_error(f"There is no deployment {name}.", "RESOURCE_DOES_NOT_EXIST")
        return DEPLOYED[name]


def run_local(name, model_uri, flavor=None, config=None):
    PlainClient("plain").create_deployment(name, model_uri, flavor, config)


def target_help():
    return "Deploys into this process. Target URI: plain"
