"""Where a `xet:` URI points: a branch or an exact revision of a Hub repository, or a Storage Bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import join_path

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

    from mlflow_xet_artifacts.settings import XetSettings

BUCKETS = "buckets"
FORMS = (
    "Write it as xet://user/repository/branch[/path], xet://user/repository@revision[/path] "
    "or xet://buckets/user/bucket[/path]"
)
# https://huggingface.co/docs/huggingface_hub/package_reference/utilities (validate_repo_id)
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True, kw_only=True)
class _Folder:
    path: str

    def absolute(self, path: str) -> str:
        """The place in the repository or bucket of an artifact path."""
        return join_path(self.path, path)

    def relative(self, place: str) -> str:
        """The artifact path of a place below the folder."""
        return place[len(self.path) + 1 :] if self.path else place


@dataclass(frozen=True, kw_only=True)
class RepositoryLocation(_Folder):
    """A folder of a Hub repository.

    Attributes:
        repo_type: `model` or `dataset`.
        repo_id: `user/repository`.
        revision: a branch, or whatever git understands where `is_exact`.
        is_exact: given as `@revision`: can only be read.
        path: below the repository's root, "" for the root.
    """

    repo_type: str
    repo_id: str
    revision: str
    is_exact: bool

    def __str__(self) -> str:
        revision = self.revision.replace("%", "%25").replace("/", "%2F")
        return f"xet://{join_path(self.repo_id + ('@' if self.is_exact else '/') + revision, self.path)}"


@dataclass(frozen=True, kw_only=True)
class BucketLocation(_Folder):
    """A folder of a Storage Bucket: `bucket_id` is `user/bucket`, `path` is "" for the root."""

    bucket_id: str

    def __str__(self) -> str:
        return f"xet://{join_path(BUCKETS, self.bucket_id, self.path)}"


def location_of(settings: XetSettings) -> RepositoryLocation | BucketLocation:
    """Read the location from the settings' URI. Each part is percent-decoded by itself: `%2F` is part of a name.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, with the forms that are understood.
    """
    uri = settings.uri
    if uri is None or uri.username or uri.password or uri.port is not None:
        raise _invalid("it names a user and password, or a port; the token belongs into HF_TOKEN", settings)
    parts = urlsplit(uri.text)
    user, *names = [unquote(part) for part in [parts.netloc, *parts.path.strip("/").split("/")] if part]
    if not user or not names or not parts.netloc:
        raise _invalid("it names no repository", settings)
    if user == BUCKETS:
        return _bucket(names, settings)
    repository, at, revision = names[0].partition("@")
    if not at and len(names) < 2:
        raise _invalid("it names no branch", settings)
    revision, path = (revision, names[1:]) if at else (names[1], names[2:])
    if not revision or revision.startswith(("-", "/")) or re.search(r"[\s~^:?*\[\\]|\.\.|@\{", revision):
        raise _invalid(f"{revision!r} is no name of a git revision", settings)
    repo_id = _checked(user, repository, settings)
    return RepositoryLocation(
        repo_type=settings.repo_type, repo_id=repo_id, revision=revision, is_exact=bool(at), path="/".join(path)
    )


def _bucket(names: list[str], settings: XetSettings) -> BucketLocation:
    if len(names) < 2:
        raise _invalid("it names no bucket", settings)
    return BucketLocation(bucket_id=_checked(names[0], names[1], settings), path="/".join(names[2:]))


def _checked(user: str, name: str, settings: XetSettings) -> str:
    for part in (user, name):
        if not _NAME.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise _invalid(f"{part!r} is no name that the Hub allows", settings)
    return f"{user}/{name}"


def _invalid(reason: str, settings: XetSettings) -> MlflowException:
    return mlflow_error(f"The artifact location {str(settings.uri)!r} cannot be used: {reason}. {FORMS}.")
