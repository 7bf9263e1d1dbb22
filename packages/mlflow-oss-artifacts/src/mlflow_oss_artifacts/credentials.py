"""Credentials: fixed ones, and temporary (STS) ones that are fetched again before they expire."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
from mlflow.exceptions import MlflowException

from mlflow_oss_artifacts.settings import OssSettings
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger

RENEW_SECONDS = 300.0
"""Temporary credentials are fetched again when they have no longer than this to live, or half of their life."""
RETRY_SECONDS = 10.0
"""After a renewal that failed, the next is tried so much later."""
FILE_CHECK_SECONDS = 5.0
"""A credentials file is looked at no more often than this."""
_LOG = get_logger("mlflow_oss_artifacts")
_TIMEOUT = (3.0, 10.0)
_ROLES = "/latest/meta-data/ram/security-credentials/"
_METADATA_TOKEN = "/latest/api/token"  # noqa: S105 # a path of the metadata service


@dataclass(frozen=True)
class Credentials:
    """An AccessKey, its security token if it is temporary, and its end in seconds since the epoch."""

    key_id: str
    key_secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: float | None = None


class CredentialSource:
    """Hands out credentials, and renews those that expire. Safe for threads.

    Args:
        fetch: makes new credentials.
        told: called with all secret values of new credentials before they are used, for redaction.
        renewable: False where `fetch` can only answer the same again.
        recheck: seconds after which `fetch` is asked again even where nothing expires, or None.
    """

    def __init__(
        self,
        fetch: Callable[[], Credentials],
        told: Callable[[tuple[str, ...]], None] = lambda _: None,
        *,
        renewable: bool = True,
        recheck: float | None = None,
    ) -> None:
        self._fetch, self._told, self.renewable, self._recheck = fetch, told, renewable, recheck
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._renew_at: float | None = None
        self._known: set[str] = set()

    def get(self) -> Credentials:
        """Credentials that are valid now.

        Raises:
            MlflowException: `UNAUTHENTICATED`: there are none, or they cannot be fetched.
        """
        current = self._current
        if current is not None and (self._renew_at is None or time.time() < self._renew_at):
            return current
        with self._lock:
            if self._current is None or (self._renew_at is not None and time.time() >= self._renew_at):
                self._current = self._renewed()
            return self._current

    def forget(self) -> None:
        """Fetch anew at the next `get`: the server refused what there is."""
        with self._lock:
            self._current = None

    def secrets(self) -> tuple[str, ...]:
        """Every secret value that was ever handed out."""
        return tuple(self._known)

    def _renewed(self) -> Credentials:
        now = time.time()
        try:
            fresh = self._fetch()
        except MlflowException as exc:
            # Failing early does no harm: what there is lives on for some minutes, and is renewed at a later call.
            if self._current is None or (self._current.expires or 0.0) <= now:
                raise
            _LOG.warning("%s The present ones are used on until they expire.", exc.message)
            self._renew_at = now + RETRY_SECONDS
            return self._current
        values = tuple(v for v in (fresh.key_id, fresh.key_secret, fresh.token) if v)
        self._known.update(values)
        self._told(values)
        ends = [now + self._recheck] if self._recheck else []
        if fresh.expires and self.renewable:
            ends.append(fresh.expires - min(RENEW_SECONDS, max(fresh.expires - now, 2.0) / 2))
        self._renew_at = min(ends) if ends else None
        return fresh


def credential_source(
    settings: OssSettings, told: Callable[[tuple[str, ...]], None] = lambda _: None
) -> CredentialSource:
    """The first source that is configured: AccessKey, file, URL, RAM role.

    Raises:
        MlflowException: `UNAUTHENTICATED`: none is.
    """
    if settings.key_id and settings.key_secret:
        fixed = Credentials(
            settings.key_id.get_secret_value().strip(),
            settings.key_secret.get_secret_value().strip(),
            settings.session_token.get_secret_value().strip() if settings.session_token else None,
        )
        return CredentialSource(lambda: fixed, told, renewable=False)
    if settings.credentials_file:
        path = settings.credentials_file
        return CredentialSource(lambda: read_file(path), told, recheck=FILE_CHECK_SECONDS)
    if settings.credentials_uri:
        uri = settings.credentials_uri
        return CredentialSource(lambda: parse(_request("GET", uri).text, "the URL of MLFLOW_OSS_CREDENTIALS_URI"), told)
    if settings.ram_role:
        role, base = settings.ram_role, settings.metadata_url.rstrip("/")
        return CredentialSource(lambda: ask_metadata(base, role), told)
    raise mlflow_error(
        "No credentials for Alibaba OSS are set. Set MLFLOW_OSS_KEY_ID and MLFLOW_OSS_KEY_SECRET (or OSS_ACCESS_KEY_ID "
        "and OSS_ACCESS_KEY_SECRET), MLFLOW_OSS_CREDENTIALS_FILE, MLFLOW_OSS_CREDENTIALS_URI, or, on an ECS instance, "
        "MLFLOW_OSS_RAM_ROLE.",
        "UNAUTHENTICATED",
    )


def read_file(path: str) -> Credentials:
    """Read a file of STS credentials, which another program replaces before they expire."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else "it is not UTF-8 text"
        raise mlflow_error(
            f"The file {path!r} that MLFLOW_OSS_CREDENTIALS_FILE names cannot be read: {reason}.", "UNAUTHENTICATED"
        ) from None
    return parse(text, f"the file {path!r} of MLFLOW_OSS_CREDENTIALS_FILE")


def ask_metadata(base: str, role: str) -> Credentials:
    """The credentials of an instance's RAM role, from the metadata service (with its session token if it has one).

    Source: Alibaba Cloud's ECS documentation, "instance metadata" and "instance RAM roles".
    """
    token = _request(
        "PUT", base + _METADATA_TOKEN, {"X-aliyun-ecs-metadata-token-ttl-seconds": "300"}, may_be_missing=True
    )
    headers = {"X-aliyun-ecs-metadata-token": token.text.strip()} if token.ok else {}
    if role == "auto":
        role = _request("GET", base + _ROLES, headers).text.strip().partition("\n")[0]
    return parse(_request("GET", base + _ROLES + role, headers).text, f"the metadata service (RAM role {role!r})")


def parse(text: str, source: str) -> Credentials:
    """Read the JSON that AssumeRole, the metadata service and a credentials URL answer.

    Raises:
        MlflowException: `UNAUTHENTICATED`, without any of the text: it may hold a secret.
    """
    try:
        answer: Any = json.loads(text)
        answer = answer.get("Credentials", answer)
        expires = answer.get("Expiration")
        return Credentials(
            answer["AccessKeyId"],
            answer["AccessKeySecret"],
            answer.get("SecurityToken") or None,
            _timestamp(expires) if expires else None,
        )
    except (ValueError, KeyError, AttributeError, TypeError) as exc:
        raise mlflow_error(
            f"What {source} answers is no JSON with AccessKeyId, AccessKeySecret, SecurityToken and Expiration "
            f"({type(exc).__name__}). Check what it names.",
            "UNAUTHENTICATED",
        ) from None


def _timestamp(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


def _request(
    method: str, url: str, headers: Mapping[str, str] | None = None, *, may_be_missing: bool = False
) -> requests.Response:
    """Ask a credential service, directly and without following redirects: its answer is a secret."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.request(method, url, headers=headers, timeout=_TIMEOUT, allow_redirects=False)
        except requests.RequestException as exc:
            raise mlflow_error(
                f"Credentials for OSS could not be fetched from {url}: {type(exc).__name__}. Check that the address is "
                "right and can be reached from here; a RAM role is only there on an ECS instance.",
                "UNAUTHENTICATED",
            ) from None
    if answer.status_code != 200 and not may_be_missing:
        raise mlflow_error(
            f"Credentials for OSS could not be fetched from {url}: HTTP {answer.status_code}. Check the RAM role's "
            "name and that it is attached to the instance.",
            "UNAUTHENTICATED",
        )
    return answer
