"""What a data scientist does with models and datasets, by MLflow's public functions, and `mlflow gc`.

Run with a tracking URI and the URI of the store behind it. Prints one line of JSON: what was read back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any
from unittest import mock

import mlflow
import mlflow.genai.datasets
import numpy as np
import pandas as pd
from click.testing import CliRunner
from mlflow.cli import gc
from mlflow.entities import LoggedModelInput
from mlflow.store.tracking.rest_store import RestStore
from sklearn.linear_model import LogisticRegression

X = np.arange(60, dtype=float).reshape(30, 2)
Y = (X[:, 0] > 30).astype(int)


def autologged() -> dict[str, Any]:
    """Fit a model under autologging."""
    mlflow.sklearn.autolog(log_models=True)
    with mlflow.start_run() as run:
        LogisticRegression().fit(X, Y)
    mlflow.sklearn.autolog(disable=True)
    read = mlflow.get_run(run.info.run_id)
    context = [tag.value for one in read.inputs.dataset_inputs for tag in one.tags]
    [made] = read.outputs.model_outputs
    model = mlflow.get_logged_model(made.model_id)
    return {
        "params": len(read.data.params) > 5,
        "context": context,
        "status": str(model.status),
        "params of model": len(model.params) > 5,
    }


def logged() -> dict[str, Any]:
    """Log a model, its metrics on a dataset and its tags; load it; find it and its run."""
    frame = pd.DataFrame(X, columns=["a", "b"])
    data = mlflow.data.from_pandas(frame, name="train-set")
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            LogisticRegression().fit(X, Y), name="clf", pip_requirements=["scikit-learn"], params={"depth": 3}
        )
        mlflow.log_input(data, context="training", tags={"k": "v"}, model=LoggedModelInput(info.model_id))
        mlflow.log_metric("acc", 0.9, model_id=info.model_id, dataset=data)
        mlflow.log_metrics({"f1": 0.8, "auc": 0.7}, step=2, model_id=info.model_id)
    mlflow.set_logged_model_tags(info.model_id, {"stage": "new", "gone": "1"})
    mlflow.delete_logged_model_tag(info.model_id, "gone")
    model, read = mlflow.get_logged_model(info.model_id), mlflow.get_run(run.info.run_id)
    search: dict[str, Any] = {"output_format": "list", "order_by": [{"field_name": "metrics.f1", "ascending": False}]}
    best = mlflow.search_logged_models(filter_string="metrics.acc > 0.5 AND tags.stage = 'new'", **search)
    on_data = mlflow.search_logged_models(datasets=[{"dataset_name": "train-set"}], **search)
    runs = mlflow.search_runs(filter_string="dataset.name = 'train-set' AND dataset.context = 'training'")
    return {
        "model_id": info.model_id,
        "run_id": run.info.run_id,
        "predicts": mlflow.sklearn.load_model(f"models:/{info.model_id}").predict(X).tolist() == Y.tolist(),
        "model": [model.name, model.params, model.tags["stage"], "gone" in model.tags, str(model.status)],
        "metrics": [[metric.key, metric.value, metric.step, metric.dataset_name] for metric in model.metrics],
        "inputs": [[one.dataset.name, sorted(tag.value for tag in one.tags)] for one in read.inputs.dataset_inputs],
        "models": [
            [one.model_id == info.model_id for one in linked]
            for linked in (read.inputs.model_inputs, read.outputs.model_outputs)
        ],
        "found": [[one.name for one in best], [one.name for one in on_data], list(runs.run_id) == [run.info.run_id]],
    }


def external() -> dict[str, Any]:
    """A model whose artifacts are elsewhere."""
    model = mlflow.create_external_model(name="ext", params={"p": "1"}, tags={"t": "2"})
    mlflow.finalize_logged_model(model.model_id, "FAILED")
    mlflow.log_model_params({"n": "9"}, model.model_id)
    read = mlflow.get_logged_model(model.model_id)
    return {"params": read.params, "status": str(read.status)}


def evaluated(experiment_id: str) -> dict[str, Any]:
    """An evaluation dataset: fill it, search it, tag it, evaluate on it, share it with an experiment."""
    datasets: Any = mlflow.genai.datasets
    made = datasets.create_dataset(name="evals", experiment_id=[experiment_id], tags={"team": "x"})
    records: Sequence[Any] = [
        {"inputs": {"q": f"{n}+{n}"}, "expectations": {"a": str(2 * n)}, "tags": {"n": str(n)}} for n in range(5)
    ]
    made.merge_records(records)
    made.merge_records([records[0] | {"expectations": {"b": "0"}}])
    datasets.set_dataset_tags(dataset_id=made.dataset_id, tags={"new": "1"})
    datasets.delete_dataset_tag(dataset_id=made.dataset_id, key="team")
    other = mlflow.create_experiment("other")
    shared = None
    if over_http_too("AddDatasetToExperiments"):
        shared = datasets.add_dataset_to_experiments(dataset_id=made.dataset_id, experiment_ids=[other]).experiment_ids
        datasets.remove_dataset_from_experiments(dataset_id=made.dataset_id, experiment_ids=[other])
    read = datasets.get_dataset(dataset_id=made.dataset_id)
    frame = read.to_df()
    exact = mlflow.genai.scorer(lambda outputs, expectations: outputs == expectations.get("a"), name="exact")
    result = mlflow.genai.evaluate(data=read, predict_fn=lambda q: str(2 * int(q.partition("+")[0])), scorers=[exact])
    answer = {
        "records": sorted(frame["inputs"].map(lambda inputs: inputs["q"])),
        "merged": sorted(len(one) for one in frame["expectations"]),
        "profile": json.loads(read.profile),
        "shared": shared in (None, [experiment_id, other]),
        "experiments": read.experiment_ids == [experiment_id],
        "tags": sorted(key for key in read.tags if not key.startswith("mlflow.")),
        "found": [one.name for one in datasets.search_datasets(filter_string="tags.new = '1'", order_by=["name ASC"])],
        "score": float(result.metrics["exact/mean"]),
    }
    datasets.delete_dataset(dataset_id=made.dataset_id)
    answer["left"] = len(datasets.search_datasets())
    return answer


def over_http_too(api: str) -> bool:
    """Whether this MLflow's client can ask a server for it; 3.6 offers functions that it cannot ask for."""
    return any(one.__name__ == api for one in RestStore._METHOD_TO_INFO)


def main(uri: str, store_uri: str) -> None:
    """Do all of it in one experiment, then delete the model and its run, and clean up."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri("sqlite:///registry.db")
    experiment_id = mlflow.set_experiment("workflow").experiment_id
    # To find a model's requirements MLflow starts a process that imports it, for ten seconds and more.
    with mock.patch("mlflow.models.infer_pip_requirements", return_value=["scikit-learn"]):
        facts = {"autologged": autologged(), "logged": logged()}
    facts |= {"external": external(), "evaluated": evaluated(experiment_id)}
    client = mlflow.MlflowClient()
    client.delete_logged_model(facts["logged"]["model_id"])
    client.delete_run(facts["logged"]["run_id"])
    cleaned = CliRunner(env={"MLFLOW_TRACKING_URI": store_uri}).invoke(gc, ["--backend-store-uri", store_uri])
    of_models = any("logged_model" in (one.name or "") for one in gc.params)
    facts["gc"] = {"exit code": cleaned.exit_code, "output": cleaned.output, "of models": of_models}
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
