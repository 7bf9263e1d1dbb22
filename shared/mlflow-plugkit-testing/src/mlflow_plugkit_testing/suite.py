"""What all conformance classes share: the guard that no rule is quietly switched off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KIT = __name__.partition(".")[0]


class ConformanceSuite:
    """Base of every conformance class.

    A subclass outside the kit may override fixtures, capability properties and helper methods. It may
    override a rule (a method `test_...` of the kit) only to mark it as a known failure:

        @pytest.mark.xfail(strict=True, reason="the service lists in upload order, ticket 42")
        def test_listing_is_sorted(self, repository):
            super().test_listing_is_sorted(repository)

    so that a plugin's gaps can be read in its tests and a mended gap is noticed.
    """

    def test_no_rule_is_switched_off(self) -> None:
        """The plugin's test class overrides a rule only by `xfail(strict=True, reason=...)`."""
        problems = list(_switched_off(type(self)))
        assert not problems, "rules of the conformance kit were switched off:\n" + "\n".join(problems)


def rules_of(suite: type[ConformanceSuite]) -> dict[str, type[ConformanceSuite]]:
    """The rules a suite inherits from the kit: method name to the kit's class that defines it last."""
    found: dict[str, type[ConformanceSuite]] = {}
    for cls in reversed(suite.__mro__):
        if _is_kit(cls):
            found |= {name: cls for name in vars(cls) if name.startswith("test_")}
    return found


def _is_kit(cls: type[Any]) -> bool:
    return cls.__module__.partition(".")[0] == KIT


def _switched_off(suite: type[ConformanceSuite]) -> Iterator[str]:
    rules = rules_of(suite)
    for cls in suite.__mro__:
        if _is_kit(cls) or cls is object:
            continue
        if "__test__" in vars(cls) and not vars(cls)["__test__"]:
            yield f"{cls.__name__}: __test__ is false"
        for mark in _marks(cls):
            if mark.name in ("skip", "skipif", "xfail"):
                yield f"{cls.__name__}: the whole class is marked {mark.name}"
        for name in rules.keys() & vars(cls).keys():
            if not _is_strict_xfail(vars(cls)[name]):
                yield f"{cls.__name__}.{name}: overridden without xfail(strict=True, reason=...)"


def _marks(thing: Any) -> list[Any]:
    marks = vars(thing).get("pytestmark", []) if isinstance(thing, type) else getattr(thing, "pytestmark", [])
    return list(marks) if isinstance(marks, (list, tuple)) else [marks]


def _is_strict_xfail(function: Any) -> bool:
    marks = _marks(function)
    others = [m for m in marks if m.name in ("skip", "skipif")]
    return not others and any(
        m.name == "xfail" and m.kwargs.get("strict") is True and m.kwargs.get("reason") and not m.args for m in marks
    )
