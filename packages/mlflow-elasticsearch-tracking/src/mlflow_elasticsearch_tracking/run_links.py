"""What a run's document keeps of its inputs and outputs.

    in:  {"d": [[dataset name, digest, {input tag: value}]], "m": [model id]}
    out: [[model id, step]]

The datasets themselves are documents of their own: runs of one experiment share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_plugkit_elasticsearch.encode import token

if TYPE_CHECKING:
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

#: The input tag that `dataset.context` in a filter of runs means (mlflow.utils.mlflow_tags).
CONTEXT_TAG = "mlflow.data.context"
Source = Mapping[str, Any]


def dataset_tokens(source: Source) -> list[str]:
    """What `dataset.name`, `dataset.digest` and `dataset.context` search for: one token for each value of each."""
    tokens: dict[str, None] = {}
    for name, digest, tags in source.get("in", {}).get("d", ()):
        tokens |= {token("name", name): None, token("digest", digest): None}
        if CONTEXT_TAG in tags:
            tokens[token("context", tags[CONTEXT_TAG])] = None
    return list(tokens)


def linked_models(source: Source) -> list[str]:
    """The ids of the logged models that a run read or made."""
    made = [model_id for model_id, _ in source.get("out", ())]
    return list(dict.fromkeys([*source.get("in", {}).get("m", ()), *made]))


def model_inputs(source: Source) -> list[LoggedModelInput]:
    """The models that a run read, in the order they were logged."""
    from mlflow.entities import LoggedModelInput

    return [LoggedModelInput(model_id=model_id) for model_id in source.get("in", {}).get("m", ())]


def model_outputs(source: Source) -> list[LoggedModelOutput]:
    """The models that a run made, in the order they were logged."""
    from mlflow.entities import LoggedModelOutput

    return [LoggedModelOutput(model_id=model_id, step=step) for model_id, step in source.get("out", ())]
