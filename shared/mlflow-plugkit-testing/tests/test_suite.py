"""The guard itself, on test classes that switch rules off in every way we know."""

from __future__ import annotations

import pytest

from mlflow_plugkit_testing import suite as suite_module
from mlflow_plugkit_testing.suite import ConformanceSuite


class Rules(ConformanceSuite):
    def test_rule(self) -> None: ...


Rules.__module__ = suite_module.__name__


def test_known_failures_marked_strictly_with_a_reason_are_allowed() -> None:
    class Plugin(Rules):
        @pytest.mark.xfail(strict=True, reason="the service cannot, ticket 1")
        def test_rule(self) -> None: ...

    Plugin().test_no_rule_is_switched_off()


@pytest.mark.parametrize(
    "override",
    [
        lambda self: None,
        None,
        pytest.mark.skip(reason="later")(lambda self: None),
        pytest.mark.xfail(reason="not strict")(lambda self: None),
        pytest.mark.xfail(strict=True)(lambda self: None),
        pytest.mark.xfail(True, strict=True, reason="with a condition")(lambda self: None),
        pytest.mark.skipif(True, reason="x")(pytest.mark.xfail(strict=True, reason="x")(lambda self: None)),
    ],
)
def test_every_other_override_is_refused(override: object) -> None:
    plugin = type("Plugin", (Rules,), {"test_rule": override})
    with pytest.raises(AssertionError, match=r"Plugin\.test_rule: overridden without"):
        plugin().test_no_rule_is_switched_off()


def test_an_override_two_classes_up_is_found_as_well() -> None:
    middle = type("Middle", (Rules,), {"test_rule": lambda self: None})
    plugin = type("Plugin", (middle,), {})
    with pytest.raises(AssertionError, match=r"Middle\.test_rule"):
        plugin().test_no_rule_is_switched_off()


def test_a_class_that_pytest_does_not_collect_is_refused() -> None:
    with pytest.raises(AssertionError, match="__test__ is false"):
        type("Plugin", (Rules,), {"__test__": False})().test_no_rule_is_switched_off()
