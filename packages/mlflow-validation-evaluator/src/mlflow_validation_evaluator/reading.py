"""From MLflow's data set and model to an `Outcome`: what is wrong with the data is said here, before anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.outcome import Outcome, Predictions
from mlflow_validation_evaluator.settings import Config, nearest

MOST_CLASSES = 500
_WHICH = "Name the one that holds the predictions: `predictions=`."


def read_outcome(model: Any, model_type: str, dataset: Any, predictions: str | None, config: Config) -> Outcome:
    """Ask the model for predictions, or take those of the data set, and check both.

    Args:
        model: what MLflow hands an evaluator; None where the data set holds the predictions.
        model_type: `classifier` or `regressor`.
        dataset: MLflow's evaluation data set.
        predictions: the name of the predictions in the model's output, where the user gave one.
        config: the configuration.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an empty data set, missing labels or predictions, classes
            that do not match, probabilities that are none, and columns that are not there.
    """
    features = _frame(dataset)
    if dataset.labels_data is None:
        raise mlflow_error("The evaluation needs labels: give `targets`.")
    labels = _series(dataset.labels_data, "labels")
    if not len(labels):
        raise mlflow_error("The data set has no rows.")
    for names in (config.scores, config.model_columns):
        require_columns(features, (names,) if isinstance(names, str) else names or (), "configuration")
    scores = None if config.scores is None else features[_as_list(config.scores)]
    features = features.drop(columns=[] if scores is None else list(scores.columns))
    takes = () if model is None else _taken(model, _raw_model(model), features, config)
    ask = None if model is None else _asker(model, takes, predictions)
    if ask is None:
        if dataset.predictions_data is None:
            raise mlflow_error("There is neither a model nor a column with predictions: give one of them.")
        raw, proba = _series(dataset.predictions_data, "predictions"), None
    else:
        raw, proba = ask(features)
    if model_type == "regressor":
        return _regression(features, labels, raw, ask, takes)
    proba = scores.to_numpy(dtype=float, na_value=np.nan) if scores is not None else proba
    return _classification(features, labels, raw, proba, ask, takes, config)


def require_columns(frame: Any, names: Sequence[str], where: str) -> None:
    """Refuse names that are no columns of the frame, naming the nearest one."""
    for name in names:
        if name not in frame.columns:
            hint = nearest(name, frame.columns, "Columns")
            raise mlflow_error(f"The {where} names the column {name!r}, which the data do not have. {hint}")


Asker = Callable[[Any], tuple[Any, Any]]


def _asker(model: Any, columns: tuple[Any, ...], predictions: str | None) -> Asker:
    raw = _raw_model(model)

    def ask(frame: Any) -> tuple[Any, Any]:
        given = frame[list(columns)]
        output = model.predict(given.copy())
        labels, proba = _unpacked(output, predictions, len(given))
        if proba is None and raw is not None and hasattr(raw, "predict_proba"):
            proba = np.asarray(raw.predict_proba(given.copy()), float), tuple(np.asarray(raw.classes_).tolist())
        return labels, proba

    return ask


def _raw_model(model: Any) -> Any:
    """The estimator inside a scikit-learn (or alike) model, whose class probabilities the pyfunc does not give."""
    try:
        raw = model.get_raw_model()
    except (AttributeError, NotImplementedError):
        return None
    return raw if hasattr(raw, "predict_proba") and hasattr(raw, "classes_") else None


def _taken(model: Any, raw: Any, features: Any, config: Config) -> tuple[Any, ...]:
    """The columns that the model is given: those that it says it takes, where the data have them; otherwise all."""
    if config.model_columns:
        return config.model_columns
    known = getattr(raw, "feature_names_in_", None)
    if known is None:
        schema = getattr(getattr(model, "metadata", None), "get_input_schema", lambda: None)()
        known = schema.input_names() if schema is not None and schema.has_input_names() else None
    names = () if known is None else tuple(known)
    return names if names and all(name in features.columns for name in names) else tuple(features.columns)


def _unpacked(output: Any, name: str | None, rows: int) -> tuple[Any, Any]:
    """Labels, and (probabilities, their classes or None) where the output has a column for each class."""
    if isinstance(output, dict) or (isinstance(output, list) and output and isinstance(output[0], dict)):
        try:
            output = pd.DataFrame(output)
        except ValueError as exc:
            raise mlflow_error(f"The model's output cannot be read as rows: {exc}.") from exc
    classes = None
    if isinstance(output, pd.DataFrame):
        if name is not None and name in output.columns:
            output = output[name]
        elif output.shape[1] > 1 and not isinstance(output.columns, pd.RangeIndex):
            classes = tuple(output.columns)
    array = output if isinstance(output, pd.Series) else np.asarray(output)
    if getattr(array, "ndim", 1) == 2 and array.shape[1] > 1:
        try:
            return None, (np.asarray(array, float), classes)
        except (TypeError, ValueError):
            raise mlflow_error(f"The model's output has several columns, not all of them numbers. {_WHICH}") from None
    labels = _series(array if isinstance(array, pd.Series) else array.reshape(-1), "predictions")
    if len(labels) != rows:
        raise mlflow_error(f"The model gave {len(labels)} predictions for {rows} rows.")
    return labels, None


def _regression(features: Any, labels: Any, raw: Any, ask: Asker | None, takes: Any) -> Outcome:
    def numbers(values: Any) -> Any:
        if values is None:
            raise mlflow_error("The model gives several columns for each row: a regressor has one number.")
        return _numbers(values, "predictions")

    predict = None if ask is None else lambda frame: Predictions(numbers(ask(frame)[0]))
    return Outcome("regression", features, _numbers(labels, "labels"), numbers(raw), predict=predict, takes=takes)


def _numbers(values: Any, what: str) -> Any:
    try:
        array = values.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise mlflow_error(f"The {what} of a regressor must be numbers, not {values.dtype}.") from None
    bad = int(np.sum(~np.isfinite(array)))
    if bad:
        raise mlflow_error(f"{bad} of {len(array)} {what} are missing or infinite. Take those rows out of the data.")
    return array


def _classification(
    features: Any, labels: Any, raw: Any, proba: Any, ask: Asker | None, takes: Any, config: Config
) -> Outcome:
    _refuse_missing(labels, "labels")
    notes: list[str] = []
    array, order = proba if isinstance(proba, tuple) else (proba, None)
    if raw is not None and array is None and _are_probabilities(raw, labels):
        notes.append("The predictions are numbers between 0 and 1: they are taken as probabilities.")
        raw, array = None, raw.to_numpy(dtype=float)
    if raw is not None:
        _refuse_missing(raw, "predictions")
    classes, columns = _classes(labels, raw, order, config)
    truth = _codes(labels, classes, "label")
    scores = None if array is None else _checked_scores(array, order, classes, columns)
    guess = _codes(raw, classes, "prediction") if raw is not None else _by_threshold(scores, classes, config)
    binary = len(classes) == 2
    if raw is not None and not np.intersect1d(truth, guess).size and not _share_kind(labels, raw):
        raise mlflow_error(f"The labels are {labels.dtype} and the predictions {raw.dtype}: make them the same.")

    def predict(frame: Any) -> Predictions:
        assert ask
        found, some = ask(frame)
        array, order = some if some is not None else (None, None)
        if array is None and raw is None:
            array = found.to_numpy(dtype=float)  # as above: the model gives probabilities as its predictions
        probabilities = None if array is None else _checked_scores(array, order, classes, columns)
        if raw is None:
            return Predictions(_by_threshold(probabilities, classes, config), probabilities)
        return Predictions(_codes(found, classes, "prediction"), probabilities)

    return Outcome(
        "binary" if binary else "multiclass", features, truth, guess, scores, tuple(classes),
        None if ask is None else predict, takes, config.zero_division, notes,
    )  # fmt: skip


def _are_probabilities(raw: Any, labels: Any) -> bool:
    if not pd.api.types.is_float_dtype(raw.dtype):
        return False
    values = raw.to_numpy(dtype=float, na_value=np.nan)
    inside = bool(np.all((values >= 0) & (values <= 1)))
    return inside and bool(np.any((values > 0) & (values < 1))) and labels.nunique() <= 2


def _classes(labels: Any, raw: Any, order: Any, config: Config) -> tuple[list[Any], list[Any]]:
    """All classes, of two the positive one last; and their order in columns of probabilities that have no names.

    That order is the one of `label_list`, or else the sorted one, as in scikit-learn's `classes_`.
    """
    values = list(pd.unique(labels)) + ([] if raw is None else list(pd.unique(raw)))
    values += [] if order is None or not _share_values(order, values) else list(order)
    given = list(config.label_list or ())
    distinct = list(dict.fromkeys(_plain(v) for v in values))
    if given:
        foreign = [v for v in distinct if v not in given]
        if foreign:
            raise mlflow_error(f"The data hold the class {foreign[0]!r}, which 'label_list' does not have: {given}.")
        twice = next((v for number, v in enumerate(given) if v in given[:number]), None)
        if twice is not None:
            raise mlflow_error(f"The class {twice!r} stands twice in 'label_list'.")
        distinct = given
    if len(distinct) > MOST_CLASSES:
        raise mlflow_error(
            f"The labels have {len(distinct)} distinct values, more than {MOST_CLASSES} classes. "
            "If they are quantities, the model_type is 'regressor'."
        )
    distinct = given or _sorted(distinct)
    columns = distinct
    if len(distinct) == 1:
        distinct = _with_other(distinct[0], config)
        columns = _sorted(distinct)
    if config.pos_label is not None:
        if config.pos_label not in distinct:
            raise mlflow_error(f"'pos_label' is {config.pos_label!r}, which is none of the classes {distinct[:20]}.")
        if len(distinct) == 2:
            distinct = sorted(distinct, key=lambda v: v == config.pos_label)
    return distinct, columns


def _with_other(only: Any, config: Config) -> list[Any]:
    """A second class beside the only one that occurs: it is the positive one, unless that is what occurs."""
    positive = config.pos_label == only if config.pos_label is not None else only in (1, True)
    if isinstance(only, bool):
        other: Any = not only
    elif isinstance(only, (int, float)):
        other = (0 if only != 0 else -1) if positive else (1 if only != 1 else 2)
    else:
        other = f"not {only}"
    if config.pos_label is not None and not positive:
        other = config.pos_label
    return [other, only] if positive else [only, other]


def _codes(values: Any, classes: list[Any], what: str) -> Any:
    codes, uniques = pd.factorize(values)
    index = {c: i for i, c in enumerate(classes)}
    mapped = np.array([index.get(_plain(u), -1) for u in uniques], np.int32)
    foreign = [u for u, code in zip(uniques, mapped, strict=True) if code < 0]
    if foreign:
        raise mlflow_error(
            f"There is a {what} {foreign[0]!r}, which is none of the classes {classes[:20]}. "
            "Give all classes in 'label_list'."
        )
    return mapped[codes]


def _checked_scores(array: Any, order: Any, classes: list[Any], columns: list[Any]) -> Any:
    array = np.asarray(array, float)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if not np.all((array >= 0) & (array <= 1)):
        raise mlflow_error("The probabilities must be numbers between 0 and 1; some are missing or lie outside.")
    if array.ndim == 1:
        if len(classes) > 2:
            raise mlflow_error(
                f"There are {len(classes)} classes: name a column of probabilities for each in 'scores'."
            )
        return array
    known = columns if order is None else _classes_named(order, classes)
    if known is None:
        if not np.allclose(array.sum(axis=1), 1.0, atol=1e-3):
            raise mlflow_error(f"The model's output has the columns {list(order)[:20]}, which are no classes. {_WHICH}")
        known = columns
    if len(known) != array.shape[1]:
        raise mlflow_error(
            f"There are {array.shape[1]} columns of probabilities and {len(known)} classes {known[:20]}: "
            "give all classes in 'label_list', in the order of the columns."
        )
    wide = np.zeros((len(array), len(classes)))
    for column, name in enumerate(known):
        if name in classes:
            wide[:, classes.index(name)] = array[:, column]
    return wide[:, 1].copy() if len(classes) == 2 else wide


def _classes_named(names: Any, classes: list[Any]) -> list[Any] | None:
    """The classes that columns are named after, be it as text; None where they have other names."""
    if _share_values(names, classes):
        return [_plain(name) for name in names]
    by_text = {str(value): value for value in classes}
    return [by_text[str(name)] for name in names] if all(str(name) in by_text for name in names) else None


def _by_threshold(scores: Any, classes: list[Any], config: Config) -> Any:
    if len(classes) == 2:
        return (scores >= config.threshold).astype(np.int32)
    return np.argmax(scores, axis=1).astype(np.int32)


def _frame(dataset: Any) -> Any:
    data = dataset.features_data
    if isinstance(data, pd.DataFrame):
        if not data.columns.is_unique:
            twice = data.columns[data.columns.duplicated()][0]
            raise mlflow_error(f"The column {twice!r} stands twice in the data. Rename one of them.")
        return data
    return pd.DataFrame(np.asarray(data), columns=list(dataset.feature_names))


def _series(values: Any, what: str) -> Any:
    if isinstance(values, pd.Series):
        return values.reset_index(drop=True)
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise mlflow_error(f"The {what} have {array.ndim} dimensions; one value for each row is needed.")
    return pd.Series(array)


def _refuse_missing(values: Any, what: str) -> None:
    missing = int(values.isna().sum())
    if missing:
        raise mlflow_error(f"{missing} of {len(values)} {what} are missing. Take those rows out of the data.")


def _plain(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _sorted(values: list[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=lambda v: (type(v).__name__, str(v)))


def _share_values(one: Any, other: Any) -> bool:
    return bool({_plain(v) for v in one} & {_plain(v) for v in other})


def _share_kind(one: Any, other: Any) -> bool:
    numeric = pd.api.types.is_numeric_dtype
    return bool(numeric(one.dtype) == numeric(other.dtype))


def _as_list(names: str | tuple[str, ...]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
