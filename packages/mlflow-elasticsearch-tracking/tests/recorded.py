"""What a store asks Elasticsearch, for tests that count it or let it fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

Request = Callable[..., Any]


@contextmanager
def requests_of(store: Any) -> Iterator[list[str]]:
    """The requests that are sent inside the block, as `METHOD path`."""
    seen: list[str] = []

    def note(request: Request, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(f"{method} {path}")
        return request(method, path, *args, **kwargs)

    with around_requests(store, note):
        yield seen


@contextmanager
def around_requests(store: Any, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Let `wrapper(request, method, path, ...)` stand in for each request."""
    cluster = store.docs.cluster
    request = cluster.request
    with mock.patch.object(cluster, "request", lambda *args, **kwargs: wrapper(request, *args, **kwargs)):
        yield
