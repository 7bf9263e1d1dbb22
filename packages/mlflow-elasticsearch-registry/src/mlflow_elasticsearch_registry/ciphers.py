"""Webhook secrets at rest: encrypted as MLflow's SQL store encrypts them (mlflow.store.model_registry.dbmodels).

The key is MLflow's own setting, MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY. Without one, MLflow makes one for the process.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mlflow.environment_variables import MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.requirements import require

KEY_VARIABLE = MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY.name
_logger = get_logger("mlflow_elasticsearch_registry")


def encrypt(secret: str) -> str:
    """The text to store instead of a secret.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a key that is none.
    """
    text: bytes = _cipher().encrypt(secret.encode())
    return text.decode()


def decrypt(stored: str) -> str | None:
    """The secret, or None where it was encrypted with another key."""
    try:
        text: bytes = _cipher().decrypt(stored.encode())
    except _fernet().InvalidToken:
        return None
    return text.decode()


def _cipher() -> Any:
    key = MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY.get()
    return _cipher_of(key) if key else _own_cipher()


@lru_cache(maxsize=8)
def _cipher_of(key: str) -> Any:
    try:
        return _fernet().Fernet(key)
    except ValueError:
        raise mlflow_error(f"{KEY_VARIABLE} is no Fernet key: 32 bytes in URL-safe base64.") from None


@lru_cache(maxsize=1)
def _own_cipher() -> Any:
    _logger.warning(
        "%s is not set: webhook secrets are encrypted with a key of this process, and no other one can read them. "
        "Set it to the same Fernet key for every worker.",
        KEY_VARIABLE,
    )
    return _fernet().Fernet(_fernet().Fernet.generate_key())


def _fernet() -> Any:
    return require("cryptography.fernet", distribution="mlflow-elasticsearch-registry", extra="webhooks")
