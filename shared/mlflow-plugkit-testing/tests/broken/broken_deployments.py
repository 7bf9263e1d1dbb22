"""Deployment targets that are wrong, each in the way that its name says."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import mlflow
from mlflow.deployments import PredictionsResponse

from mlflow_plugkit_testing.deployments import DeploymentClientConformance

sys.path.insert(0, str(Path(__file__).parent))

import plain_deployments as plain
from plain_deployments import DEPLOYED, PlainClient


def module(**changes):
    given = {"Client": PlainClient, "run_local": plain.run_local, "target_help": plain.target_help, **changes}
    return types.SimpleNamespace(**{name: value for name, value in given.items() if value is not None})


class Rules(DeploymentClientConformance):
    target = "plain"
    plugin_module = module()


class TestClassInsteadOfAModule(Rules):
    breaks = {"test_module_has_what_mlflow_asks_for": "MLflow expects its module"}
    plugin_module = PlainClient


class TestModuleWithoutHelp(Rules):
    breaks = {"test_module_has_what_mlflow_asks_for": "the plugin's module has no ['target_help']"}
    plugin_module = module(target_help=None)


class TestTwoClients(Rules):
    breaks = {"test_module_shows_one_client": "MLflow accepts exactly one"}
    plugin_module = module(Other=type("Other", (PlainClient,), {}))


class TestClientWithoutItsUri(Rules):
    class Client(PlainClient):
        def __init__(self, target_uri):
            self.target_uri = None

    breaks = {"test_client_is_found_by_target": "call super().__init__(target_uri)"}
    plugin_module = module(Client=Client)


class TestHelpThatPrints(Rules):
    breaks = {"test_help_is_text": "MLflow prints it as text"}
    plugin_module = module(target_help=lambda: print("plain"))


class TestHelpWithoutAUri(Rules):
    breaks = {"test_help_is_text": "the help does not show a target URI with 'plain'"}
    plugin_module = module(target_help=lambda: "Deploys.")


class TestRunLocalWithoutConfig(Rules):
    breaks = {"test_run_local_takes_mlflows_arguments": "cannot be called as MLflow calls it"}
    plugin_module = module(run_local=lambda name, model_uri: None)


class TestRunLocalThatRequiresAll(Rules):
    breaks = {"test_run_local_takes_mlflows_arguments": "flavor and config are optional in MLflow"}
    plugin_module = module(run_local=lambda name, model_uri, flavor, config: None)


class TestCreateThatDoesNotWait(Rules):
    class Client(PlainClient):
        def predict(self, deployment_name=None, inputs=None, endpoint=None):
            raise ConnectionRefusedError("not yet")

    breaks = {"test_created_deployment_predicts": "predict failed right after create_deployment returned"}
    plugin_module = module(Client=Client)


class TestOtherPredictions(Rules):
    class Client(PlainClient):
        def predict(self, deployment_name=None, inputs=None, endpoint=None):
            found = self.find(deployment_name).predict(inputs)
            return PredictionsResponse(predictions=[round(p) + 1 for p in found])

    breaks = {"test_created_deployment_predicts": "predict() of a data frame gives"}
    plugin_module = module(Client=Client)


class TestCreateThatReturnsNothing(Rules):
    class Client(PlainClient):
        def create_deployment(self, *args, **kwargs):
            super().create_deployment(*args, **kwargs)

    breaks = {"test_create_returns_the_name": "create_deployment returned None"}
    plugin_module = module(Client=Client)


class TestCreateThatReturnsAnotherName(Rules):
    class Client(PlainClient):
        def create_deployment(self, *args, **kwargs):
            return {"id": super().create_deployment(*args, **kwargs)["name"]}

    breaks = {"test_create_returns_the_name": "which lacks 'name'"}
    plugin_module = module(Client=Client)


class TestListThatIsADictionary(Rules):
    class Client(PlainClient):
        def list_deployments(self, endpoint=None):
            return {"deployments": super().list_deployments()}

    breaks = {"test_deployment_is_listed_and_described": "list_deployments returned a dict, not a list"}
    plugin_module = module(Client=Client)


class TestListOfThisClientOnly(Rules):
    class Client(PlainClient):
        def __init__(self, target_uri):
            super().__init__(target_uri)
            self.mine = []

        def create_deployment(self, name, *args, **kwargs):
            self.mine.append({"name": name})
            return super().create_deployment(name, *args, **kwargs)

        def list_deployments(self, endpoint=None):
            return self.mine

    breaks = {
        "test_deployment_is_listed_and_described": "the deployment is not in list_deployments()",
        "test_delete_removes": "a deleted deployment is still listed",
        "test_failed_create_leaves_nothing": "the failed create_deployment left a deployment behind",
    }
    plugin_module = module(Client=Client)


class TestSecondDeploymentReplacesTheFirst(Rules):
    class Client(PlainClient):
        def create_deployment(self, name, model_uri, flavor=None, config=None, endpoint=None):
            DEPLOYED[name] = mlflow.pyfunc.load_model(model_uri)
            return {"name": name}

    breaks = {"test_names_are_unique": "a second deployment of the same name: None"}
    plugin_module = module(Client=Client)


class TestUnknownNamesAreKeyErrors(Rules):
    class Client(PlainClient):
        def find(self, name):
            return DEPLOYED[name]

    breaks = {"test_unknown_names_are_refused": "of a name that does not exist: no MlflowException but KeyError"}
    plugin_module = module(Client=Client)


class TestUpdateThatDoesNothing(Rules):
    class Client(PlainClient):
        def update_deployment(self, name, model_uri=None, flavor=None, config=None, endpoint=None):
            self.find(name)

    breaks = {"test_update_changes_the_model": "predict() after update_deployment gives"}
    plugin_module = module(Client=Client)


class TestDeleteThatComplains(Rules):
    class Client(PlainClient):
        def delete_deployment(self, name, config=None, endpoint=None):
            self.find(name)
            super().delete_deployment(name)

    breaks = {"test_delete_can_be_repeated": "delete_deployment is not idempotent"}
    plugin_module = module(Client=Client)


class TestAnyModelWillDo(Rules):
    class Client(PlainClient):
        def create_deployment(self, name, model_uri, flavor=None, config=None, endpoint=None):
            return {"name": name}

    breaks = {"test_failed_create_leaves_nothing": "a model that does not exist raised no error"}
    plugin_module = module(Client=Client)


class TestEndpointsThatAreNotWritten(Rules):
    class Client(PlainClient):
        def create_endpoint(self, name, config=None):
            raise NotImplementedError

    breaks = {"test_endpoints_work_or_are_refused": "create_endpoint: no MlflowException but NotImplementedError()"}
    plugin_module = module(Client=Client)


class TestEndpointsThatAreForgotten(Rules):
    class Client(PlainClient):
        def create_endpoint(self, name, config=None):
            return {"name": name}

        def get_endpoint(self, endpoint):
            return {"name": "another"}

        def list_endpoints(self):
            return []

        def delete_endpoint(self, endpoint):
            pass

    breaks = {"test_endpoints_work_or_are_refused": "get_endpoint does not return the created endpoint"}
    supports_endpoints = True
    plugin_module = module(Client=Client)
