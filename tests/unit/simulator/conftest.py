from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from carrier_simulator import TwilioSimulator
from carrier_simulator.jitter import VARIABLE
from tests.unit.simulator.application import Application, signed_by_twilio


@pytest.fixture(autouse=True)
def _requests_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests hold the order, whatever a run of all of them is to shuffle."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioSimulator]:
    async with TwilioSimulator() as simulator:
        yield simulator


@pytest.fixture
async def application(carrier: TwilioSimulator) -> AsyncIterator[Application]:
    async with Application(signed_by_twilio(carrier.auth_token)) as application:
        yield application
