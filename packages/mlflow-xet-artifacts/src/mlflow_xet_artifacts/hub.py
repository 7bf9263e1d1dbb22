"""The connection to the Hub: huggingface_hub's client, with this plugin's token, timeout and silence."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.retries import TransferError
from mlflow_plugkit.requirements import require
from mlflow_xet_artifacts.errors import CONFLICTS, PASSING, hub_code

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from mlflow_xet_artifacts.settings import XetSettings

DISTRIBUTION = "mlflow-xet-artifacts"
_timeout: ContextVar[float | None] = ContextVar("mlflow_xet_timeout", default=None)
_RESET = re.compile(r";\s*r=0\s*;\s*t=(\d+)")


class XetTransferError(Exception):
    """Content or an answer did not arrive, or arrived damaged; another attempt may help."""


class Hub:
    """huggingface_hub's `HfApi` as the settings ask for it. Making one connects to nothing.

    Attributes:
        settings: of the artifact repository.
    """

    def __init__(self, settings: XetSettings) -> None:
        self.settings = settings

    @cached_property
    def api(self) -> HfApi:
        """The client. It holds no connection: huggingface_hub keeps one pool for the process, renewed after a fork."""
        from huggingface_hub import HfApi

        settings = self.settings
        token = settings.token.get_secret_value() if settings.token else None
        endpoint = settings.endpoint.rstrip("/") if settings.endpoint else None
        return HfApi(endpoint=endpoint, token=token, library_name=DISTRIBUTION, library_version=version(DISTRIBUTION))

    def bound(self, backend: Backend) -> None:
        """Give a backend the bounds of its attempts."""
        backend.retry_attempts = self.settings.attempts

    def secrets(self) -> tuple[str, ...]:
        """The token in use, also where huggingface_hub found it."""
        from huggingface_hub import get_token

        return (*self.settings.secrets(), *filter(None, [get_token()]))

    def headers(self) -> dict[str, str]:
        """Headers that carry the token, for requests that huggingface_hub does not make itself."""
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # exported lazily

        return build_hf_headers(token=self.api.token, library_name=DISTRIBUTION, library_version=version(DISTRIBUTION))

    @contextmanager
    def requests(self) -> Iterator[HfApi]:
        """The client, for a block in which its requests have a timeout and it draws no bars of its own."""
        require("hf_xet", distribution=DISTRIBUTION)
        _watch_session()
        before = _timeout.set(self.settings.timeout)
        try:
            with _bars.silenced(), named_errors():
                yield self.api
        finally:
            _timeout.reset(before)

    def retry_delay(self, error: BaseException) -> float | None:
        """See `Backend.retry_delay`; conflicts are resolved where the commit is made."""
        import httpx2

        if isinstance(error, (XetTransferError, TransferError, httpx2.TransportError)):
            return 0.0
        code = hub_code(error)
        return retry_after(getattr(error, "response").headers) if code in PASSING else None  # noqa: B009 # an SDK's error

    def is_conflict(self, error: BaseException) -> bool:
        """Whether a commit was refused because another one came before it."""
        return hub_code(error) in CONFLICTS


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by `Retry-After` or `RateLimit` (https://huggingface.co/docs/hub/rate-limits), else 0."""
    asked = headers.get("Retry-After", "").strip()
    if asked.replace(".", "", 1).isdigit():
        return float(asked)
    window = _RESET.search(headers.get("RateLimit", ""))
    return float(window[1]) if window else 0.0


@contextmanager
def named_errors() -> Iterator[None]:
    """Name what comes as a built-in error: hf_xet's own, and the client's about an answer that is no JSON."""
    try:
        yield
    except json.JSONDecodeError as exc:
        raise XetTransferError(f"the Hub's answer is damaged ({exc})") from exc
    except (RuntimeError, ConnectionError, TimeoutError) as exc:
        if type(exc).__module__ != "builtins":
            raise
        raise XetTransferError(str(exc)) from exc


class _Bars:
    """Switches huggingface_hub's progress bars off while any thread asks for it: MLflow draws its own."""

    def __init__(self) -> None:
        self._lock, self._users, self._restore = threading.Lock(), 0, False

    @contextmanager
    def silenced(self) -> Iterator[None]:
        from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
        from huggingface_hub.utils import (  # type: ignore[attr-defined] # exported lazily
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )

        with self._lock:
            self._users += 1
            if self._users == 1:
                self._restore = HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
                if self._restore:
                    disable_progress_bars()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and self._restore:
                    enable_progress_bars()


_bars = _Bars()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_bars.__init__)  # type: ignore[misc] # a fresh lock, no users


def _watch_session() -> None:
    """Have huggingface_hub's client, which waits for ever, obey the timeout of the calling block."""
    from huggingface_hub import get_session

    hooks: dict[str, list[Callable[..., Any]]] = get_session().event_hooks
    if _limit not in hooks["request"]:
        hooks["request"].append(_limit)


def _limit(request: Any) -> None:
    seconds = _timeout.get()
    if seconds is not None:
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
