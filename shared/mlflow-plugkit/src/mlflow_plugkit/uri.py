"""URIs and paths: one parser, one set of path rules, one redaction.

Pure functions over strings; nothing here touches a file system or a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

HIDDEN = "***"

_SENSITIVE_NAME = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credential|signature|odbc_connect)[\w.-]*|sig|sas|auth)"
)
_USERINFO = re.compile(r"(?<=://)(?P<user>[^/?#\s:@'\"]*):(?P<password>[^/?#\s'\"]*)@")
# A password with an unescaped "/" or "?" in it: the text after the colon is no port, and an "@" follows.
_BROKEN_USERINFO = re.compile(r"(?<=://)(?P<user>[^/?#\s:@'\"]*):(?!\d*(?:[/?#\s'\"]|$))(?P<password>[^\s'\"]*)@")
_ASSIGNMENT = re.compile(
    rf"(?P<name>\b{_SENSITIVE_NAME})(?P<quote>[\"']?)(?P<sep>\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s&;,#\"'}}\])]*[^\s&;,#\"'}}\]).])",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"(?P<head>\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|digest|negotiate|token)\s+)?)"
    r"(?P<value>[A-Za-z0-9._~+/=-]{4,})",
    re.IGNORECASE,
)
# The scheme alone is also an English word ("basic authentication"): only what looks like a token is hidden.
_BARE_CREDENTIALS = re.compile(
    r"(?P<head>\b(?:bearer|basic|negotiate)\s+)(?=\S*[0-9=]|\S{20})(?P<value>[A-Za-z0-9._~+/=-]{6,})",
    re.IGNORECASE,
)
# Tokens whose vendors gave them a recognisable prefix, and JSON web tokens (RFC 7519).
_KNOWN_TOKEN = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|xox[abprs]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)


@dataclass(frozen=True)
class PluginURI:
    """A parsed URI.

    Attributes:
        scheme: lower-case, with its `+driver` part.
        username, host: decoded, "" where absent; the host in lower case.
        password: decoded, "" where absent; never part of the repr.
        port: None where absent.
        path: decoded once and checked (see `validate_path`), with its leading slash where it has one.
        query: decoded (name, value) pairs in the order given.
    """

    scheme: str
    username: str = ""
    password: str = field(default="", repr=False)
    host: str = ""
    port: int | None = None
    path: str = ""
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    text: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return redact_uri(self.text)


def parse_uri(uri: str) -> PluginURI:
    """Parse and check a URI.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an empty URI, one without a scheme, a bad port,
            an option given twice or without a value, a fragment, or a path that `validate_path` refuses.
    """
    if not uri or not uri.strip():
        raise _invalid("The URI is empty. Give one that starts with the plugin's scheme, such as 'scheme://host/path'.")
    check_text(uri, "URI")
    shown = redact_uri(uri)
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as exc:
        raise _invalid(f"{shown!r} is not a valid URI: {redact_text(str(exc))}.") from None
    if not parts.scheme:
        raise _invalid(f"{shown!r} has no scheme. Write it as 'scheme://host/path'.")
    if parts.fragment:
        raise _invalid(f"{shown!r} holds a '#'. Write it as %23 where it is part of a name or of a password.")
    query = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in query:
        if not value:
            raise _invalid(f"Option {name!r} in {shown!r} has no value. Write '{name}=value', or leave it out.")
        if [n for n, _ in query].count(name) > 1:
            raise _invalid(f"Option {name!r} stands twice in {shown!r}. Keep one.")
    path = _decode(parts.path, shown)
    if path.strip("/"):
        validate_path(path.strip("/"), what=f"path of the URI {shown},")
    return PluginURI(
        scheme=parts.scheme.lower(),
        username=_decode(parts.username or "", shown),
        password=_decode(parts.password or "", shown),
        host=(parts.hostname or "").lower(),
        port=port,
        path=path,
        query=tuple(query),
        text=uri,
    )


def validate_path(path: str, what: str = "artifact path") -> str:
    """Return `path` unchanged if it is a clean relative POSIX path.

    The rules are those of MLflow's own server (mlflow.utils.uri.validate_path_is_safe) plus what
    would not survive a round trip: no empty path or part, no leading slash, no `.` or `..` part
    (percent-encoded any number of times, too), no backslash, no NUL or other control character, and
    nothing that UTF-8 cannot write.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, with the reason.
    """
    check_text(path, what)
    if not path:
        raise _invalid(f"The {what} is empty. Name a relative path such as 'models/model.pkl'.")
    decoded = path
    for _ in range(8):
        if "\\" in decoded:
            raise _invalid(f"The {what} {path!r} holds a backslash. Separate its parts with '/'.")
        if any(ord(c) < 32 or ord(c) == 127 for c in decoded):
            raise _invalid(f"The {what} {path!r} holds a NUL or another control character. Rename the file.")
        if ".." in decoded.split("/"):
            raise _invalid(f"The {what} {path!r} climbs out of its folder ('..'). Give a path below it.")
        decoded, before = unquote(decoded, errors="replace"), decoded
        if decoded == before:
            break
    else:
        raise _invalid(f"The {what} {path!r} is percent-encoded too many times over. Rename the file.")
    if path.startswith("/") or decoded.startswith("/"):
        raise _invalid(f"The {what} {path!r} is absolute. Give a relative one.")
    if any(part in ("", ".") for part in path.split("/")):
        raise _invalid(f"The {what} {path!r} has an empty or '.' part. Write it without, such as 'a/b'.")
    return path


def clean_path(path: str | None) -> str:
    """The path of an artifact as MLflow's callers mean it, checked by `validate_path`.

    None and "" name the root and give ""; one trailing slash names the same folder and is taken off
    (`mlflow gc` deletes `<run>/artifacts/` through a proxying server).
    """
    path = (path or "").removesuffix("/") if path != "/" else path
    return validate_path(path) if path else ""


def check_text(text: str, what: str) -> None:
    """Refuse text that UTF-8 cannot write: the lone surrogates of an undecodable file name.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _invalid(f"The {what} {text!a} is not valid UTF-8. Rename it to a UTF-8 name.") from None


def join_path(*parts: str | None) -> str:
    """Join POSIX path parts; None and "" are left out, doubled slashes are folded."""
    return "/".join(p.strip("/") for p in parts if p and p.strip("/"))


def redact_uri(uri: str) -> str:
    """The URI with `***` for its password and for the value of each option named like a secret."""
    return redact_text(uri)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Text with every secret replaced by `***`.

    Hidden are the given values (also where they stand percent-encoded), passwords inside URIs, values
    of names such as `password=`, `"token":` or `X-Amz-Signature=`, Authorization headers, and tokens
    recognisable by their prefix.

    Args:
        text: any text: a URI, a log line, a traceback.
        secrets: values known to be secret. Values under four characters are left alone: hiding each
            "a" of a text would only make it unreadable.
    """
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        for form in {secret, quote(secret, safe=""), quote(secret)}:
            text = text.replace(form, HIDDEN)
    text = _USERINFO.sub(rf"\g<user>:{HIDDEN}@", text)
    text = _BROKEN_USERINFO.sub(rf"\g<user>:{HIDDEN}@", text)
    text = _AUTHORIZATION.sub(rf"\g<head>{HIDDEN}", text)
    text = _BARE_CREDENTIALS.sub(rf"\g<head>{HIDDEN}", text)
    text = _ASSIGNMENT.sub(rf"\g<name>\g<quote>\g<sep>{HIDDEN}", text)
    return _KNOWN_TOKEN.sub(HIDDEN, text)


def _decode(text: str, shown: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _invalid(f"{shown!r} holds a percent-encoded byte that is not valid UTF-8.") from None


def _invalid(message: str) -> MlflowException:
    from mlflow_plugkit.errors import mlflow_error

    return mlflow_error(message)
