"""Tokens from a program, in the manner of kubectl's credential plugins (client.authentication.k8s.io)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from contextlib import suppress
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import redact_text
from mlflow_request_auth.bearer import BearerCredential, store_for
from mlflow_request_auth.settings import CommandSettings
from mlflow_request_auth.source import TokenSource, Unavailable
from mlflow_request_auth.tokens import Token, seconds_until, token_from_response


def credential(settings: CommandSettings) -> BearerCredential:
    """The credential of the provider `command`. The program runs when the first token is needed."""
    _arguments(settings)
    store = store_for(settings, ("command", settings.command), outlives_process=False)
    return BearerCredential(TokenSource(lambda previous: fetch(settings, previous), store, settings))


def fetch(settings: CommandSettings, previous: Token | None = None) -> Token:
    """Run the program once.

    Raises:
        Unavailable: it failed or took too long, and had worked before.
        MlflowException: `UNAUTHENTICATED`: it failed the first time, or printed no token.
    """
    arguments = _arguments(settings)
    try:
        output = _run(arguments, settings.timeout)
    except _FailedError as exc:
        if previous is not None:
            raise Unavailable(str(exc)) from None
        raise mlflow_error(f"{exc} Run it by hand to see why (MLFLOW_AUTH_COMMAND).", "UNAUTHENTICATED") from None
    response = _parsed(output, arguments[0])
    return token_from_response(response, ttl=settings.command_ttl)


class _FailedError(Exception):
    """The program failed; the text says how."""


def _arguments(settings: CommandSettings) -> list[str]:
    try:
        arguments = shlex.split(settings.command)
    except ValueError as exc:
        raise mlflow_error(f"MLFLOW_AUTH_COMMAND cannot be split into arguments: {exc}.") from None
    if not arguments:
        raise mlflow_error("MLFLOW_AUTH_COMMAND is empty.")
    return arguments


def _run(arguments: list[str], timeout: float) -> str:
    name = arguments[0]
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as exc:
        raise mlflow_error(f"The program {name!r} of MLFLOW_AUTH_COMMAND cannot be started: {exc.strerror}.") from None
    try:
        output, complaint = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        raise _FailedError(f"The program {name!r} gave no token within {timeout:g} seconds.") from None
    if process.returncode != 0:
        lines = [line.strip() for line in complaint.splitlines() if line.strip()]
        said = f": {redact_text(lines[-1])[:200].rstrip('.')}" if lines else ""
        raise _FailedError(f"The program {name!r} ended with exit status {process.returncode}{said}.")
    return output


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the program and its children, which could keep its pipes open."""
    if os.name == "nt":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5)


def _parsed(output: str, name: str) -> dict[str, Any]:
    """A token endpoint's JSON, an ExecCredential's, or the bare token."""
    text = output.strip()
    if not text.startswith("{"):
        if not text or len(text.split()) != 1:
            raise mlflow_error(
                f"The program {name!r} of MLFLOW_AUTH_COMMAND printed no token: expected one word, or JSON with "
                "access_token, or an ExecCredential.",
                "UNAUTHENTICATED",
            )
        return {"access_token": text}
    try:
        data = json.loads(text)
        status = data.get("status") if isinstance(data.get("status"), dict) else None
        if status is None:
            return dict(data)
        response = {"access_token": status.get("token")}
        if status.get("expirationTimestamp"):
            response["expires_in"] = seconds_until(str(status["expirationTimestamp"]))
    except ValueError:
        raise mlflow_error(
            f"The program {name!r} of MLFLOW_AUTH_COMMAND printed JSON that cannot be read.", "UNAUTHENTICATED"
        ) from None
    return response
