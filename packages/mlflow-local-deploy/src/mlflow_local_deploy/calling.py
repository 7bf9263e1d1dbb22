"""Requests to a deployment: inputs as MLflow's scoring server takes them, errors as MLflow's clients raise them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests

from mlflow_local_deploy.errors import DEPLOYMENT_ERRORS, answer_error
from mlflow_local_deploy.place import Place
from mlflow_local_deploy.serving.gate import TOKEN_HEADER
from mlflow_plugkit.errors import mlflow_error

CONNECT_SECONDS = 5.0
#: How long a client asks again where nobody listens: while workers that were killed are replaced.
RECOVERY_SECONDS = 10.0


def payload(inputs: Any) -> str:
    """JSON for `/invocations`.

    A data frame becomes `dataframe_split`, arrays and lists `inputs`; a dictionary in one of the server's formats
    and a chat request stay as they are (mlflow.models.convert_input_example_to_serving_input).

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what cannot be written as JSON.
    """
    from mlflow.models import convert_input_example_to_serving_input

    if inputs is None:
        raise mlflow_error("There are no inputs. Give a data frame, an array, a list or a dictionary.")
    if isinstance(inputs, str):
        return json.dumps({"inputs": inputs})
    formats = {"inputs", "instances", "dataframe_split", "dataframe_records"}
    if isinstance(inputs, dict) and formats & set(inputs):
        return json.dumps(inputs, default=_plain)
    if hasattr(inputs, "to_frame") and not hasattr(inputs, "columns"):  # a pandas Series
        inputs = inputs.to_frame()
    found = convert_input_example_to_serving_input(inputs)
    return str(found)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise mlflow_error(f"The inputs hold a {type(value).__name__}, which cannot be written as JSON.")


def was_refused(error: BaseException) -> bool:
    """Whether no connection came about, so that the request has reached nobody and may be sent again."""
    cause = error.__cause__
    return isinstance(cause, requests.ConnectionError) and "NewConnectionError" in str(cause)


def call(place: Place, path: str, body: str, timeout: float) -> Any:
    """Send JSON, return the answer's JSON.

    Raises:
        MlflowException: the deployment's own error, by DEPLOYMENT_ERRORS.
    """
    with _open(place, path, body, timeout) as answer:
        return _json(answer)


def stream(place: Place, path: str, body: str, timeout: float) -> Iterator[Any]:
    """Send JSON, yield the JSON of each server-sent event.

    Raises:
        MlflowException: the deployment's own error, also one that comes within the stream.
    """
    with _open(place, path, body, timeout, stream=True) as answer:
        for line in answer.iter_lines():
            text = line.decode("utf-8").removeprefix("data: ")
            if text == "[DONE]":
                return
            if not text:
                continue
            chunk = json.loads(text)
            if isinstance(chunk, dict) and set(chunk) == {"error_code", "message"}:
                raise mlflow_error(f"Local deployment: the stream broke off: {chunk['message']}", chunk["error_code"])
            yield chunk
    raise mlflow_error("Local deployment: the stream ended before it was complete.", "TEMPORARILY_UNAVAILABLE")


def _open(place: Place, path: str, body: str, timeout: float, *, stream: bool = False) -> requests.Response:
    status = place.status()
    if status is None or not status.port:
        raise mlflow_error(f"{place.name!r} has not started yet. Try again.", "TEMPORARILY_UNAVAILABLE")
    token = place.token()
    # One request, then the connection is closed: a worker that ends need not wait for this client.
    headers = {"Content-Type": "application/json", "Connection": "close", TOKEN_HEADER.decode(): token}
    with DEPLOYMENT_ERRORS.applied(f"ask {place.name!r}", [token]):
        session = requests.Session()
        session.trust_env = False  # no proxy stands between this machine and itself
        limits = (CONNECT_SECONDS, timeout + CONNECT_SECONDS)
        answer = session.post(status.url + path, data=body.encode(), headers=headers, timeout=limits, stream=stream)
        if answer.status_code != 200:
            raise answer_error(answer.status_code, _json(answer))
    return answer


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text
