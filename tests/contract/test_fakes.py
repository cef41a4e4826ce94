"""The stores of the unit tests, in memory and on a virtual clock, do what every store must: the same tests, as far as
a fake has the part that they are about."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.contract import test_store, test_store_deliveries, test_store_hang_ups
from tests.unit.call.fakes import FakeStore, Faults
from tests.unit.webhooks.fakes import FakeQueue

NOT_FOR_A_FAKE = {
    "test_a_closed_store_says_so": "it is never closed",
    "test_closing_twice_is_fine_and_using_it_then_is_a_clear_error": "it is never closed",
    "test_an_unreadable_put_leaves_nothing_behind": "it writes no text",
    "test_pages_hold_every_call_once_also_those_of_one_moment": "no unit test pages through calls",
    "test_a_page_is_counted_and_cut_by_the_store": "no unit test pages through calls",
    "test_a_record_that_changed_is_on_the_lists_of_its_new_values_alone": "no unit test pages through calls",
    "test_only_what_is_on_the_page_is_read": "no unit test pages through calls",
}


class WholeStore(FakeStore):
    """The call's fakes and those of the webhooks."""

    def __init__(self) -> None:
        super().__init__(Faults())
        self.deliveries = FakeQueue()

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def cases(module: ModuleType) -> Iterator[Any]:
    """The module's tests that ask for a store, with the values of their one parametrisation."""
    for name, test in inspect.getmembers(module, inspect.iscoroutinefunction):
        wanted = set(inspect.signature(test).parameters)
        marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
        named = {mark.args[0]: mark.args[1] for mark in marks}
        if not name.startswith("test_") or name in NOT_FOR_A_FAKE or hasattr(test, "hypothesis"):
            continue
        if wanted - {"store", "make"} - set(named):
            continue
        if len(named) > 1 or any("," in argument for argument in named):
            raise AssertionError(f"{name}: more values than this expands")
        ((argument, values),) = named.items() or [("", [None])]
        for number, value in enumerate(values):
            yield pytest.param(test, {argument: value} if argument else {}, id=f"{name}-{number}" if argument else name)


@pytest.mark.parametrize(
    ("test", "values"),
    [case for module in (test_store, test_store_deliveries, test_store_hang_ups) for case in cases(module)],
)
async def test_a_fake_does_what_every_store_does(test: Callable[..., Any], values: dict[str, Any]) -> None:
    store = WholeStore()
    given = {"store": store, "make": lambda: store}
    asked = inspect.signature(test).parameters
    await test(**{name: thing for name, thing in given.items() if name in asked}, **values)
