"""Commits to a branch: the content first, then the commit itself, on top of whatever others have committed."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_xet_artifacts.errors import hub_code
from mlflow_xet_artifacts.hub import Hub
from mlflow_xet_artifacts.location import RepositoryLocation

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

CONFLICT_ATTEMPTS = 25
_locks: dict[tuple[Any, ...], threading.Lock] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_locks.clear)


class Commits:
    """Makes commits on one branch; makes the branch and the repository first, where the settings allow it."""

    def __init__(self, hub: Hub, location: RepositoryLocation) -> None:
        self._hub, self._location = hub, location
        self._place: dict[str, Any] = {"repo_id": location.repo_id, "repo_type": location.repo_type}
        self._key = (hub.settings.endpoint, location.repo_type, location.repo_id, location.revision)

    def upload(self, operations: Sequence[CommitOperationAdd]) -> None:
        """Move the content to the Xet storage. Nothing is visible by that; small files travel with the commit.

        An explicit, empty `.gitignore` keeps the Hub from leaving out files that the repository's own one names.
        """

        def move() -> None:
            self._hub.api.preupload_lfs_files(
                additions=operations,
                revision=self._location.revision,
                free_memory=False,
                gitignore_content="",
                **self._place,
            )

        self._making_what_is_missing(move)

    def make(self, operations: Callable[[str], Sequence[Any]], message: str) -> str:
        """Commit, and answer the id of the commit that holds the change.

        Args:
            operations: given the id of the branch's head, what to do on top of it; nothing makes no commit.
            message: the commit's title.

        Raises:
            HfHubHTTPError: 412 or 409, where other writers came first `CONFLICT_ATTEMPTS` times.
        """
        with _locks.setdefault(self._key, threading.Lock()):  # threads of one process need not meet on the Hub
            for attempt in range(1, CONFLICT_ATTEMPTS + 1):
                head: str = self._making_what_is_missing(self._head)
                wanted = list(operations(head))
                if not wanted:
                    return head
                try:
                    return self._commit(wanted, message, head)
                except Exception as exc:
                    if not self._hub.is_conflict(exc) or attempt == CONFLICT_ATTEMPTS:
                        raise
                time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311 # no cryptography
        raise AssertionError("unreachable")

    def _commit(self, operations: Sequence[Any], message: str, head: str) -> str:
        try:
            made = self._hub.api.create_commit(
                operations=operations,
                commit_message=message,
                revision=self._location.revision,
                parent_commit=head,
                **self._place,
            )
        except ValueError as exc:
            if hub_code(exc) is not None:
                raise
            raise mlflow_error(f"The Hub cannot take this commit: {exc}") from exc
        return str(made.oid)

    def _head(self) -> str:
        info = self._hub.api.repo_info(revision=self._location.revision, expand=["sha"], **self._place)  # type: ignore[arg-type] # takes a list
        return str(info.sha)

    def _making_what_is_missing(self, call: Callable[[], Any]) -> Any:
        """Run a call; where it misses the repository or branch, make that, if allowed, and run it again."""
        try:
            return call()
        except Exception as exc:
            missing = hub_code(exc)
            if missing not in ("RepoNotFound", "RevisionNotFound") or not self._hub.settings.create:
                raise
        api, settings = self._hub.api, self._hub.settings
        if missing == "RepoNotFound":
            api.create_repo(private=settings.private, exist_ok=True, **self._place)
        if self._location.revision != "main":
            api.create_branch(branch=self._location.revision, exist_ok=True, **self._place)
        return call()
