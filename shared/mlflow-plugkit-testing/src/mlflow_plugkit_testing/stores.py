"""What the conformance classes of the tracking store and of the model registry share."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException

T = TypeVar("T")

PAGES_AT_MOST = 200
SECONDS_AT_MOST = 120.0


@contextmanager
def refused(code: str, what: str) -> Iterator[None]:
    """Assert that the block raises `MlflowException` with the error code named `code`."""
    wanted = f"{what} must raise MlflowException with error code {code}"
    try:
        yield
    except MlflowException as exc:
        if exc.error_code != code:
            raise AssertionError(f"{wanted}; it raised {exc.error_code}: {exc.message}") from exc
    except Exception as exc:
        raise AssertionError(f"{wanted}; it raised {type(exc).__name__}: {exc}") from exc
    else:
        raise AssertionError(f"{wanted}; it was accepted")


@contextmanager
def noting(wrong: list[str], what: str) -> Iterator[None]:
    """Add what fails in the block to `wrong`, so that a rule can name all of its failing cases at once."""
    try:
        yield
    except (AssertionError, MlflowException) as exc:
        wrong.append(f"{what!r}: {exc}")


def all_pages(fetch: Callable[[str | None], Any]) -> list[list[Any]]:
    """Follow page tokens from None until none is given; return the pages.

    Args:
        fetch: takes a page token, returns a `PagedList`, or MLflow's pair of a list and a token.
    """
    pages: list[list[Any]] = []
    token: str | None = None
    while len(pages) < PAGES_AT_MOST:
        found = fetch(token)
        items, token = (found[0], found[1]) if isinstance(found, tuple) else (found, found.token)
        pages.append(list(items))
        if not token:
            return pages
    raise AssertionError(f"there was still a page token after {PAGES_AT_MOST} pages: the token does not advance")


def together(count: int, function: Callable[[int], T]) -> list[T | BaseException]:
    """Run `function(0..count-1)` in as many threads that start at once; return results or errors in order."""
    barrier = threading.Barrier(count)

    def run(number: int) -> T | BaseException:
        barrier.wait(SECONDS_AT_MOST)
        try:
            return function(number)
        except Exception as exc:  # noqa: BLE001 (returned to the rule, which judges it)
            return exc

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, number) for number in range(count)]
        return [future.result(SECONDS_AT_MOST) for future in futures]


def errors_in(results: list[Any]) -> list[str]:
    """The errors among the results of `together`, readable."""
    return [f"{type(r).__name__}: {r}" for r in results if isinstance(r, BaseException)]


class _Effects:
    """Records what a block does to the world outside its process, by Python's audit events."""

    def __init__(self) -> None:
        self._installed = False
        self._recording: list[str] | None = None
        self._thread = 0

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._recording is None or threading.get_ident() != self._thread:
            return
        if event in ("sqlite3.connect", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.mkdir"):
            self._recording.append(f"{event} {args[:1]}")
        elif event == "open" and _writes(args) and "__pycache__" not in str(args[0]):
            self._recording.append(f"open for writing {args[0]!r}")

    @contextmanager
    def recorded(self) -> Iterator[list[str]]:
        if not self._installed:
            sys.addaudithook(self._hook)  # cannot be taken out again, so there is one for the whole process
            self._installed = True
        threads = set(threading.enumerate())
        effects: list[str] = []
        self._thread, self._recording = threading.get_ident(), effects
        try:
            yield effects
        finally:
            self._recording = None
            effects += [f"started thread {t.name}" for t in threading.enumerate() if t not in threads]


def _writes(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


effects = _Effects()


def unanswered_members(store: type[Any], base: type[Any]) -> list[str]:
    """Members of MLflow's abstract store that this class answers with a silent None or a bare NotImplementedError.

    `mlflow.store.*.abstract_store.AbstractStore` sets `__metaclass__`, which Python 3 ignores: nothing
    stops a class that lacks an abstract method, and its docstring-only body returns None.
    """
    found = []
    for name, declared in inspect.getmembers(base, inspect.isfunction):
        if name.startswith("__"):
            continue
        member = getattr(store, name)
        function = inspect.unwrap(member) if callable(member) else None
        if inspect.isfunction(function):
            says = _says_nothing(function)
            if says and (function is declared or says == "NotImplementedError" or _says_nothing(declared)):
                found.append(f"{name} ({says}, from {function.__module__})")
    return found


def _says_nothing(function: Callable[..., Any]) -> str:
    """Return "None" or "NotImplementedError" if that is all a function answers, else an empty string."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # made at run time: there is no source to judge
        return ""
    definition = next((n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))), None)
    if definition is None:
        return ""
    body = [n for n in definition.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    if all(isinstance(n, ast.Pass) for n in body):
        return "None"
    if len(body) == 1 and isinstance(body[0], ast.Raise) and body[0].exc is not None:
        raised = body[0].exc.func if isinstance(body[0].exc, ast.Call) else body[0].exc
        if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
            return "NotImplementedError"
    return ""


def incompatible_signatures(store: type[Any], base: type[Any], excused: frozenset[str] = frozenset()) -> list[str]:
    """Members that cannot be called in every way in which the base class's member can be called."""
    found = []
    for name, declared in inspect.getmembers(base, inspect.isfunction):
        member = getattr(store, name)
        if name.startswith("__") or name in excused or member is declared or not callable(member):
            continue
        if problem := _narrower(inspect.signature(member), inspect.signature(declared)):
            found.append(f"{name}: {problem}")
    return found


def _narrower(ours: inspect.Signature, theirs: inspect.Signature) -> str:
    kinds = {p.kind for p in ours.parameters.values()}
    takes_any_keyword = inspect.Parameter.VAR_KEYWORD in kinds
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    positional_ours = [p.name for p in ours.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    positional_theirs = [p.name for p in theirs.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    for name, wanted in theirs.parameters.items():
        if wanted.kind in variadic:
            continue
        if name not in ours.parameters:
            if not takes_any_keyword:
                return f"has no parameter {name!r}"
        elif wanted.default is not wanted.empty and ours.parameters[name].default is wanted.empty:
            return f"parameter {name!r} must be optional"
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        for ours_name, theirs_name in zip(positional_ours, positional_theirs, strict=False):
            if ours_name != theirs_name:
                return f"parameter {theirs_name!r} stands in another place"
    for name, own in ours.parameters.items():
        if own.kind not in variadic and own.default is own.empty and name not in theirs.parameters:
            return f"parameter {name!r} is unknown to MLflow and must be optional"
    return ""
