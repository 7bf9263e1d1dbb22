"""Rules for the four kinds of objects that MLflow constructs by itself, without arguments.

Request auth, request header, run context and default experiment providers are instantiated by
`register` of MLflow's registries (mlflow/tracking/{request_auth,request_header,context,default_experiment}/
registry.py), two of them during `import mlflow`; any exception there but ImportError or AttributeError
breaks `import mlflow` for everybody in the environment.
"""

from __future__ import annotations

import inspect
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.suite import ConformanceSuite

CONSTRUCTION_SECONDS = 0.05
THREADS = 16
PLANTED_PASSWORD = "plugkit-hunter2"  # noqa: S105 # a value that must not travel, not a credential

HOSTILE_VALUES = (
    "", " ", "\n", "a\r\nX-Injected: b", "\udcff", "\u00e9\u6f22\U0001f600", "{", "[]", "null", "\x01\x7f",
    "x" * 20_000, "0", "-1", "../../etc/passwd", f"https://user:{PLANTED_PASSWORD}@127.0.0.1:9/x?token={PLANTED_PASSWORD}",
)  # fmt: skip
"""Values that environment variables have had in the wild: empty, not UTF-8, with line breaks, very long."""


class ProviderConformance(ConformanceSuite):
    """Base of the suites for providers; use one of its subclasses.

    Override `entry_point_name`, or `provider_class` for a class that no distribution registers, and the
    fixtures `configured` and `unconfigured`.
    """

    entry_point_group: ClassVar[str] = ""
    entry_point_name: ClassVar[str] = ""
    variables: ClassVar[tuple[str, ...]] = ()
    """The environment variables that the provider reads. Each is set to hostile values."""

    @property
    def provider_class(self) -> type[Any]:
        """The class under test. By default what the entry point names."""
        loaded: type[Any] = load_entry_point(self.entry_point_group, self.entry_point_name)
        return loaded

    @property
    def needs_configuration(self) -> bool:
        """Whether the provider does nothing until the user configures it."""
        return True

    def make_provider(self) -> Any:
        """A new provider, made as MLflow makes it."""
        return self.provider_class()

    def reset(self) -> None:
        """Forget what the plugin keeps for the process; called before the environment is changed within a rule."""

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Bring the provider's configuration into the environment. Override it."""
        raise NotImplementedError("override the fixture 'configured' of the conformance suite")

    @pytest.fixture
    def unconfigured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take all configuration out of the environment. By default removes `variables`."""
        for name in self.variables:
            monkeypatch.delenv(name, raising=False)

    def test_constructor_takes_nothing(self, unconfigured: None) -> None:
        """MLflow's registries call the class with no argument, whether it is configured or not."""
        with must_not_raise("the class cannot be constructed without arguments, as MLflow's registry does"):
            self.make_provider()

    def test_constructor_does_no_io(self, unconfigured: None) -> None:
        """The constructor runs while MLflow is imported: no file, no socket, no process, no thread."""
        assert self.provider_class  # finding and importing the class reads files, constructing it must not
        with recorded_io() as done:
            self.make_provider()
        assert not done, f"the constructor does input and output while MLflow is being imported: {done}"

    def test_constructor_is_fast(self, unconfigured: None) -> None:
        """The best of five constructions takes under 50 ms; everybody's `import mlflow` waits for it."""
        best = min(seconds(self.make_provider) for _ in range(5))
        assert best < CONSTRUCTION_SECONDS, f"the constructor takes {best * 1000:.0f} ms of everybody's import mlflow"


class ContextualProviderConformance(ProviderConformance):
    """Base of the suites for providers that MLflow asks `in_context()` before it takes what they offer."""

    def test_inactive_when_unconfigured(self, unconfigured: None) -> None:
        """A provider that merely is installed changes nothing: `in_context()` is False."""
        if not self.needs_configuration:
            pytest.skip("the provider needs no configuration")
        active = self.make_provider().in_context()
        assert active is False, f"in_context() is {active!r} although nothing is configured; MLflow expects False"

    def test_active_when_configured(self, configured: Any) -> None:
        """With its configuration present `in_context()` is True."""
        active = self.make_provider().in_context()
        assert active is True, f"in_context() is {active!r} with the configuration present; MLflow expects True"


@lru_cache(maxsize=32)
def load_entry_point(group: str, name: str) -> Any:
    """Load the entry point `name` of `group`, or fail the test and say which names are installed."""
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        pytest.fail(f"no distribution registers {name!r} under {group!r}; installed are {sorted(found)}")
    return found[name].load()


@contextmanager
def registered_provider(registry: Any, cls: type[Any], provider: Any) -> Iterator[None]:
    """Have MLflow's provider registry hold `provider` as its last, in place of other instances of `cls`."""
    before = list(registry._registry)
    registry._registry[:] = [p for p in before if type(p) is not cls] + [provider]
    try:
        yield
    finally:
        registry._registry[:] = before


@contextmanager
def registered_in(registry: MutableMapping[str, Any], name: str, plugin: Any) -> Iterator[None]:
    """Have one of MLflow's registries that are dictionaries hold `plugin` under `name`."""
    before = dict(registry)
    registry[name] = plugin
    try:
        yield
    finally:
        registry.clear()
        registry.update(before)


@contextmanager
def must_not_raise(claim: str) -> Iterator[None]:
    """Turn whatever the block raises into a failure that starts with `claim`."""
    try:
        yield
    except Exception as exc:
        raise AssertionError(f"{claim}: {type(exc).__name__}: {exc}") from exc


def hostile_environments(variables: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set each variable to each hostile value in turn; yields a description of the environment."""
    for name in variables:
        before = os.environ.get(name)
        for value in HOSTILE_VALUES:
            monkeypatch.setenv(name, value)
            yield f"with {name}={value[:60]!a}"
        if before is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, before)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], times: int = 21) -> float:
    """The median of `times` calls, after one that is not counted."""
    call()
    return statistics.median(seconds(call) for _ in range(times))


def in_threads(call: Callable[[], Any]) -> list[Any]:
    """The results of 16 threads that make the same call at the same moment; raises what a thread raised."""
    start = threading.Barrier(THREADS, timeout=30)

    def run() -> Any:
        start.wait()
        return call()

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run) for _ in range(THREADS)]]


_OPENINGS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.system", "os.exec")
_CODE = (".py", ".pyc", ".pyi", ".so", ".pyd", ".dylib")
_watchers: dict[int, list[str]] = {}
_installed = threading.Event()


@contextmanager
def recorded_io(*, files: bool = True) -> Iterator[list[str]]:
    """Record what this thread opens (sockets, processes, with `files` also files) and which threads it starts.

    Files that the import system reads are left out. Uses Python's audit events.
    """
    if not _installed.is_set():
        sys.addaudithook(_on_audit)
        _installed.set()
    threads = set(threading.enumerate())
    done: list[str] = []
    events: list[str] = []
    _watchers[threading.get_ident()] = events
    try:
        yield done
    finally:
        del _watchers[threading.get_ident()]
        done += [e for e in events if files or not e.startswith("open ")]
        done += [f"thread {t.name}" for t in set(threading.enumerate()) - threads]


def _on_audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watchers:
        return
    done = _watchers.get(threading.get_ident())
    if done is None:
        return
    if event in _OPENINGS:
        done.append(f"{event} {args[1:]!r}"[:200] if event == "socket.connect" else f"{event} {args[:1]!r}"[:200])
    elif event == "open" and isinstance(args[0], (str, bytes)) and not os.fsdecode(args[0]).endswith(_CODE):
        done.append(f"open {os.fsdecode(args[0])!a}")


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The names of the arguments that a caller must give."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
