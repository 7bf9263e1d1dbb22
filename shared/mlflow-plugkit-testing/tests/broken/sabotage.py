"""Ways to break a store from the outside: each call from outside goes through a function that may spoil it."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.search_utils import SearchUtils

from mlflow_plugkit_testing.stores_sqlite import fresh_sqlite_uri

_inside = threading.local()


class OnSqlite:
    """The store of each test is `store_class`, on an empty SQLite database."""

    @pytest.fixture
    def store_uri_factory(self):
        return fresh_sqlite_uri

    def store_builder(self, uri):
        return type(self).store_class


def sabotaged(store_class, around):
    """A subclass whose methods answer what `around(name, method, args, kwargs)` answers, when called from outside."""

    class Sabotaged(store_class):
        def __getattribute__(self, name):
            value = super().__getattribute__(name)
            if name.startswith(("__", "_open", "_settings")) or not callable(value) or getattr(_inside, "busy", False):
                return value

            def method(*args, **kwargs):
                _inside.busy = True
                try:
                    return around(name, value, args, kwargs)
                finally:
                    _inside.busy = False

            return method

    return Sabotaged


def wrong_codes(name, method, args, kwargs):
    """Every error is an INTERNAL_ERROR."""
    try:
        return method(*args, **kwargs)
    except MlflowException as exc:
        raise MlflowException(str(exc), INTERNAL_ERROR) from exc


def permissive(name, method, args, kwargs):
    """Nothing is ever refused."""
    try:
        return method(*args, **kwargs)
    except MlflowException:
        return None


def deaf_to(*names):
    """These operations do nothing."""

    def around(name, method, args, kwargs):
        return None if name in names else method(*args, **kwargs)

    return around


def backwards(name, method, args, kwargs):
    """Every list comes in the opposite order."""
    found = method(*args, **kwargs)
    if isinstance(found, PagedList):
        return PagedList(list(reversed(found)), found.token)
    if isinstance(found, tuple):
        return list(reversed(found[0])), found[1]
    return list(reversed(found)) if isinstance(found, list) else found


def skipping(name, method, args, kwargs):
    """Each page token skips a row."""
    found = method(*args, **kwargs)
    if isinstance(found, PagedList) and found.token:
        return PagedList(found, _one_further(found.token))
    if isinstance(found, tuple) and len(found) == 2 and found[1]:
        return found[0], _one_further(found[1])
    return found


def _one_further(token):
    if "experiment_ids" in base64.b64decode(token).decode():  # logged models have a token of their own
        from mlflow.utils.search_utils import SearchLoggedModelsPaginationToken

        made = SearchLoggedModelsPaginationToken.decode(token)
        return replace(made, offset=made.offset + 1).encode()
    skipped = SearchUtils.create_page_token(SearchUtils.parse_start_offset_from_page_token(token) + 1)
    return skipped.decode() if isinstance(skipped, bytes) else skipped


def rewriting(**replacements):
    """Arguments that are text, and lists of text, are changed: old=new, for the method `of`."""
    of = replacements.pop("of")

    def change(value):
        for old, new in replacements.values():
            if isinstance(value, str):
                value = value.replace(old, new)
        return [change(v) for v in value] if isinstance(value, list) else value

    def around(name, method, args, kwargs):
        if name in of:
            args, kwargs = [change(a) for a in args], {k: change(v) for k, v in kwargs.items()}
        return method(*args, **kwargs)

    return around
