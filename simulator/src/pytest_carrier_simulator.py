"""pytest plugin: simulated carriers as fixtures.

Each fixture is a factory, so that it works with whatever runs a project's coroutines (pytest-asyncio, anyio):
`async with twilio_simulator() as twilio`. Every pytest of an environment loads this module, so it stands outside of the
package and imports the simulators only for a test that asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from carrier_simulator import CarrierSimulator, PlivoSimulator, TelnyxSimulator, TwilioSimulator

    Simulator = TypeVar("Simulator", bound=CarrierSimulator)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("carrier simulators").addoption(
        "--carrier-jitter",
        type=int,
        metavar="SEED",
        help="shuffle the carriers' independent requests; the same seed shuffles them in the same way",
    )


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("carrier_jitter")
    if seed is None:
        return
    from carrier_simulator.jitter import VARIABLE

    patch = pytest.MonkeyPatch()
    patch.setenv(VARIABLE, str(seed))  # Also for simulators that a test makes itself, and for its child processes.
    config.add_cleanup(patch.undo)


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("carrier_jitter")
    return None if seed is None else f"carrier simulators: independent requests are shuffled, seed {seed}"


@pytest.fixture
def twilio_simulator() -> Iterator[Callable[..., TwilioSimulator]]:
    """Makes simulators of Twilio on free ports of 127.0.0.1. Keywords: those of `TwilioSimulator`."""
    from carrier_simulator import TwilioSimulator

    yield from _factory(TwilioSimulator)


@pytest.fixture
def telnyx_simulator() -> Iterator[Callable[..., TelnyxSimulator]]:
    """Makes simulators of Telnyx on free ports of 127.0.0.1. Keywords: those of `TelnyxSimulator`."""
    from carrier_simulator import TelnyxSimulator

    yield from _factory(TelnyxSimulator)


@pytest.fixture
def plivo_simulator() -> Iterator[Callable[..., PlivoSimulator]]:
    """Makes simulators of Plivo on free ports of 127.0.0.1. Keywords: those of `PlivoSimulator`."""
    from carrier_simulator import PlivoSimulator

    yield from _factory(PlivoSimulator)


def _factory(kind: Callable[..., Simulator]) -> Iterator[Callable[..., Simulator]]:
    made: list[Simulator] = []

    def make(**options: object) -> Simulator:
        simulator = kind(**options)
        made.append(simulator)
        return simulator

    yield make
    running = [type(simulator).__name__ for simulator in made if simulator.is_running]
    if running:
        pytest.fail(f"still running after the test: {', '.join(running)}; use `async with`", pytrace=False)
