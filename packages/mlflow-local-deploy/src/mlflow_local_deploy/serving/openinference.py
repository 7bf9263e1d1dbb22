"""The Open Inference Protocol, version 2, over HTTP and JSON (github.com/kserve/open-inference-protocol).

Tensors become what the model's signature asks for, and predictions become tensors: a data frame is one tensor per
column. Binary tensors are an extension of the protocol that is not spoken here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException

#: The protocol's data types, and numpy's. BYTES are texts in JSON.
TYPES = {
    "BOOL": "bool",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TYPES.items()}
#: MLflow's column types whose numpy names differ from the protocol's.
COLUMNS = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
    "binary": "BYTES", "datetime": "BYTES",
}  # fmt: skip


class InferenceError(Exception):
    """What the client is told."""

    def __init__(self, text: str, status: int = 400, code: str = "INVALID_PARAMETER_VALUE") -> None:
        super().__init__(text)
        self.status, self.code = status, code


class OpenInference:
    """One model's answers."""

    def __init__(self, about: dict[str, Any], model: Any) -> None:
        self._name, self._version, self._model = about["name"], about["version"], model
        self._server = {"name": "mlflow-local-deploy", "version": about["server_version"], "extensions": []}
        self._inputs, self._outputs = model.metadata.get_input_schema(), model.metadata.get_output_schema()
        model_path = f"/v2/models/{re.escape(self._name)}(?:/versions/{re.escape(self._version)})?"
        self._paths = re.compile(f"{model_path}(/ready|/infer|)")

    def find(self, method: str, path: str) -> dict[str, Any] | Callable[[bytes], str]:
        """The answer to a path, or what makes it from a request's body.

        Raises:
            InferenceError: 404 for what there is not, 405 for a wrong method.
        """
        fixed: dict[str, dict[str, Any]] = {
            "/v2": self._server,
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
        }
        found = self._paths.fullmatch(path.rstrip("/"))
        part = found[1] if found else None
        if part is None and path.rstrip("/") not in fixed:
            text = f"There is no {path!r}; the model is {self._name!r}, version {self._version!r}."
            raise InferenceError(text, 404, "ENDPOINT_NOT_FOUND")
        if (method == "POST") != (part == "/infer") or method not in ("GET", "HEAD", "POST"):
            raise InferenceError(f"{path!r} does not take {method}.", 405, "BAD_REQUEST")
        if part == "/infer":
            return self.infer
        if part == "/ready":
            return {"name": self._name, "ready": True}
        return self.metadata() if part == "" else fixed[path.rstrip("/")]

    def metadata(self) -> dict[str, Any]:
        """The model's metadata, its tensors from the signature."""
        return {
            "name": self._name,
            "versions": [self._version],
            "platform": "mlflow_python_function",
            "inputs": _tensors_of(self._inputs, "input"),
            "outputs": _tensors_of(self._outputs, "output"),
        }

    def infer(self, body: bytes) -> str:
        """Answer an inference request.

        Raises:
            InferenceError: the request is malformed, or the model does not take it.
        """
        request = _request(body)
        tensors = {str(t.get("name", "")): _array(t) for t in request["inputs"]}
        data = self._model_input(tensors)
        params = {k: v for k, v in request["parameters"].items() if self._takes(k)}
        try:
            predictions = self._model.predict(data, params=params or None)
        except MlflowException as exc:
            raise InferenceError(exc.message, exc.get_http_status_code(), exc.error_code) from exc
        except Exception as exc:  # the model is somebody else's code: what it raises is about its input
            raise InferenceError(f"The model raised {type(exc).__name__}: {exc}", 400, "BAD_REQUEST") from exc
        outputs = [_tensor(name, array) for name, array in _named(predictions, self._outputs)]
        wanted = [o["name"] for o in request["outputs"]]
        if unknown := set(wanted) - {o["name"] for o in outputs}:
            raise InferenceError(f"The model has no output {sorted(unknown)}; it has {[o['name'] for o in outputs]}.")
        answer = {
            "model_name": self._name,
            "model_version": self._version,
            **({"id": request["id"]} if "id" in request else {}),
            "outputs": [o for o in outputs if not wanted or o["name"] in wanted],
        }
        return json.dumps(answer, allow_nan=False)

    def _takes(self, parameter: str) -> bool:
        schema = self._model.metadata.get_params_schema()
        return bool(schema) and parameter in {p.name for p in schema.params}

    def _model_input(self, tensors: dict[str, np.ndarray[Any, Any]]) -> Any:
        schema = self._inputs
        if schema is None:
            single = next(iter(tensors.values()))
            return single if len(tensors) == 1 and single.ndim != 1 else _frame(tensors)
        if schema.is_tensor_spec():
            return tensors if schema.has_input_names() else next(iter(tensors.values()))
        if not schema.has_input_names() or not set(schema.input_names()) & set(tensors):
            single = next(iter(tensors.values()))
            if len(tensors) == 1 and single.ndim == 2 and single.shape[1] == len(schema.inputs):
                # One matrix for all columns, in the order of the signature.
                names = schema.input_names() if schema.has_input_names() else range(single.shape[1])
                return _frame({name: single[:, i] for i, name in enumerate(names)})
        return _frame(tensors)


def _request(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InferenceError(f"The body is no JSON: {exc}.") from exc
    inputs = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(inputs, list) or not inputs or not all(isinstance(t, dict) for t in inputs):
        raise InferenceError("The body needs 'inputs', a list of tensors with name, shape, datatype and data.")
    parameters, outputs = request.get("parameters") or {}, request.get("outputs") or []
    if not isinstance(parameters, dict):
        raise InferenceError("The body's 'parameters' are no object.")
    if not isinstance(outputs, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs
    ):
        raise InferenceError("The body's 'outputs' are no list of objects, each with the name of an output.")
    return {**request, "parameters": parameters, "outputs": outputs}


def _array(tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    name, shape, datatype = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise InferenceError(f"The tensor {name!r} has the shape {shape!r}, which is no list of whole numbers.")
    if not isinstance(datatype, str) or datatype not in TYPES:
        raise InferenceError(f"The tensor {name!r} has the datatype {datatype!r}; known are {', '.join(TYPES)}.")
    if not isinstance(tensor.get("data"), list):
        raise InferenceError(f"The tensor {name!r} has no list as its data (binary data is not supported).")
    try:
        return np.array(_exactly(_flat(tensor["data"]), datatype), dtype=TYPES[datatype]).reshape(shape)
    except (ValueError, TypeError, OverflowError) as exc:
        raise InferenceError(f"The tensor {name!r} is no {datatype} of the shape {shape}: {exc}.") from exc


def _exactly(data: list[Any], datatype: str) -> list[Any]:
    """The values, which must be of the type: numpy would cut fractions off, and take any text for true."""
    types = set(map(type, data))
    if datatype == "BYTES":
        return data
    if datatype.startswith("FP"):
        fits = types <= {int, float, type(None)}  # null is NaN, as in the answers
    elif datatype == "BOOL":
        fits = types <= {bool, int} and all(value in (0, 1) for value in data)
    else:
        fits = types <= {int} or (types <= {int, float} and all(float(value).is_integer() for value in data))
        limits = np.iinfo(TYPES[datatype])
        fits = fits and (not data or (limits.min <= min(data) and max(data) <= limits.max))
    if not fits:
        raise TypeError("a value is of another type, or too large")
    return data


def _flat(data: list[Any]) -> list[Any]:
    """Data may be nested as the shape is, or flat in row-major order."""
    while data and isinstance(data[0], list):
        data = [value for row in data for value in row]
    return data


def _frame(tensors: dict[Any, np.ndarray[Any, Any]]) -> Any:
    import pandas as pd

    columns = {name: _column(name, array) for name, array in tensors.items()}
    if len({len(c) for c in columns.values()}) > 1:
        raise InferenceError(
            f"The tensors have different numbers of rows: { {n: len(c) for n, c in columns.items()} }."
        )
    return pd.DataFrame(columns)


def _column(name: Any, array: np.ndarray[Any, Any]) -> Any:
    if array.ndim == 0:
        raise InferenceError(f"The tensor {name!r} has no dimension: the first one counts the rows.")
    flat = array.reshape(len(array), -1) if array.size else array.reshape(len(array), 1)
    return flat[:, 0] if flat.shape[1] == 1 else list(array)


def _named(predictions: Any, schema: Any) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Predictions as arrays with names: those of the data frame, the dictionary or the signature."""
    if hasattr(predictions, "columns"):
        return [(str(name), np.asarray(predictions[name])) for name in predictions.columns]
    if isinstance(predictions, dict):
        return [(str(name), _as_array(value)) for name, value in predictions.items()]
    names = schema.input_names() if schema is not None and schema.has_input_names() else []
    array = _as_array(predictions)
    if len(names) > 1 and array.ndim == 2 and array.shape[1] == len(names):
        return [(name, array[:, i]) for i, name in enumerate(names)]
    return [(str(names[0] if names else getattr(predictions, "name", None) or "predictions"), array)]


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        try:
            return np.array(value)
        except ValueError:  # rows of different lengths
            return np.array([json.dumps(v, default=str) for v in value], dtype=object)
    return np.atleast_1d(np.asarray(value))


def _tensor(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    datatype = NAMES.get(array.dtype.name, "BYTES")
    flat = array.ravel()
    data: list[Any] = flat.tolist() if datatype != "BYTES" else [_text(v) for v in flat.tolist()]
    if datatype.startswith("FP"):
        data = [v if math.isfinite(float(v)) else None for v in data]  # JSON has neither NaN nor infinity
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)


def _tensors_of(schema: Any, fallback: str) -> list[dict[str, Any]]:
    if schema is None:
        return []
    found = []
    for number, spec in enumerate(schema.inputs):
        name = getattr(spec, "name", None) or (fallback if len(schema.inputs) == 1 else f"{fallback}-{number}")
        if schema.is_tensor_spec():
            found.append({"name": name, "datatype": NAMES.get(spec.type.name, "BYTES"), "shape": list(spec.shape)})
        else:
            kind = getattr(spec.type, "name", "")
            found.append({"name": name, "datatype": COLUMNS.get(kind, "BYTES"), "shape": [-1]})
    return found
