"""Access tokens: what a token endpoint, a command or a file gave us, and how long it lasts."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_request_auth.settings import check_header_value


@dataclass(frozen=True)
class Token:
    """A bearer token (RFC 6750). Its repr shows no secret.

    Attributes:
        access_token: what is sent to the tracking server.
        expires_at: end of its life in seconds since 1970 by this machine's clock, or None where unknown.
        lifetime: seconds from its issue to its end, or None.
        refresh_token: what a new one can be got with, or None.
        subject: whom the provider says it belongs to, for people to read; never relied upon.
        scope: as granted, or None.
    """

    access_token: str = field(repr=False)
    expires_at: float | None = None
    lifetime: float | None = None
    refresh_token: str | None = field(default=None, repr=False)
    subject: str | None = None
    scope: str | None = None

    def seconds_left(self) -> float:
        """Seconds until its end by this machine's clock; infinite where the end is unknown."""
        if self.expires_at is None:
            return float("inf")
        left = self.expires_at - time.time()
        return left if self.lifetime is None else min(left, self.lifetime)

    def to_json(self) -> str:
        """The token with its secrets, for a store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Token:
        """What `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or not isinstance(data.get("access_token"), str):
            raise ValueError("no stored token")
        known: dict[str, Any] = {name: data.get(name) for name in cls.__dataclass_fields__}
        return cls(**known)


def token_from_response(response: Mapping[str, Any], previous: Token | None = None, ttl: float | None = None) -> Token:
    """Make a token of a token endpoint's JSON (RFC 6749, 5.1).

    Its end is `expires_in` from now, so that the two machines' clocks need not agree; without it the
    token's own `exp - iat` where it is a JWT, else `ttl`, else unknown.

    Args:
        response: the JSON object.
        previous: the token it replaces; its refresh token and subject live on where no new one came.
        ttl: seconds to assume where nothing else is known.

    Raises:
        MlflowException: `UNAUTHENTICATED`: there is no access token in it, or one of a type other than Bearer.
    """
    access = response.get("access_token")
    if not isinstance(access, str) or not access:
        raise mlflow_error("The token provider's answer holds no access_token.", "UNAUTHENTICATED")
    kind = str(response.get("token_type") or "Bearer")
    if kind.lower() not in ("bearer", "n_a"):  # N_A: RFC 8693, 2.2.1
        raise mlflow_error(f"The token provider gave a token of the type {kind!r}; MLflow needs Bearer.")
    check_header_value(access, "The access token")
    claims = jwt_claims(access)
    lifetime = _lifetime(response, claims, ttl)
    before = previous or Token("")
    refresh = response.get("refresh_token")
    subject = claims.get("sub") or jwt_claims(str(response.get("id_token") or "")).get("sub")
    return Token(
        access_token=access,
        expires_at=None if lifetime is None else time.time() + lifetime,
        lifetime=lifetime,
        refresh_token=refresh if isinstance(refresh, str) else before.refresh_token,
        subject=str(subject) if subject else before.subject,
        scope=str(response["scope"]) if response.get("scope") else before.scope,
    )


def _lifetime(response: Mapping[str, Any], claims: Mapping[str, Any], ttl: float | None) -> float | None:
    candidates: list[Any] = [response.get("expires_in")]
    if isinstance(claims.get("exp"), (int, float)):
        issued = claims.get("iat")
        candidates.append(claims["exp"] - (issued if isinstance(issued, (int, float)) else time.time()))
    for candidate in candidates:
        try:
            seconds = float(candidate)
        except (TypeError, ValueError):
            continue
        if 0 < seconds < 1e9:
            return seconds
    return ttl or None


def jwt_claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified, or {} where the token is none: to show and to plan, never to trust."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def seconds_until(timestamp: str) -> float:
    """Seconds until an RFC 3339 timestamp such as `2026-01-02T03:04:05Z`.

    Raises:
        ValueError: it is none.
    """
    # Python 3.10 reads neither "Z" nor the nanoseconds that Go prints.
    text = re.sub(r"\.\d+", "", timestamp.strip()).replace("Z", "+00:00").replace("z", "+00:00")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp() - time.time()
