"""Loggers that never print a secret."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mlflow_plugkit.uri import redact_text


class _Redaction(logging.Filter):
    """Formats the record early, redacts it, and redacts the traceback that would follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact_text(record.getMessage(), self.secrets), None
        if record.exc_info and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type] # bool only before LogRecord is made
            record.exc_text = redact_text(text, self.secrets)
        return True


def get_logger(name: str, secrets: Iterable[str] = ()) -> logging.Logger:
    """The logger `name`, with a filter that redacts passwords in URIs, tokens and the given secrets.

    Args:
        name: the package's import name, so that `logging.getLogger("mlflow_oss_artifacts").setLevel(...)`
            works as users expect. Handlers and levels are the application's business and stay untouched.
        secrets: further values to redact; calls add to those of earlier calls.
    """
    logger = logging.getLogger(name)
    redaction = next((f for f in logger.filters if isinstance(f, _Redaction)), None)
    if redaction is None:
        redaction = _Redaction()
        logger.addFilter(redaction)
    redaction.secrets.update(s for s in secrets if s)
    return logger
