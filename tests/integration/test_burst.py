"""Thirty calls that begin at once: each gets its room."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.harness import INBOUND, PATIENCE, Stage, connect_call, place, until

CALLS = 30

# Sixty WebRTC connections: with others at work the machine would be late for theirs, and they for these.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]


async def test_thirty_calls_that_are_placed_at_once_and_thirty_streams_that_open_at_once(stage: Stage) -> None:
    # How quick the machine is that runs this test is not the question.
    connector = await stage.connector(join_wait=PATIENCE, max_calls=2 * CALLS, agent_timeout=0)
    client = stage.client(connector)
    twilio = await stage.twilio()
    async with asyncio.timeout(2 * PATIENCE):
        urls = await asyncio.gather(*(connect_call(client, f"out-{number}") for number in range(CALLS)))
    assert len(set(urls)) == CALLS
    assert [call.state for call in connector.calls.live()] == ["ringing"] * CALLS

    urls = await asyncio.gather(*(connect_call(client, f"in-{number}", INBOUND) for number in range(CALLS)))
    phones = [place(twilio, url) for url in urls]
    await until(lambda: _active(connector) == CALLS, 2 * PATIENCE)
    assert not [phone for phone in phones if phone.ended.has_come()]


def _active(connector: object) -> int:
    return sum(call.state == "active" for call in connector.calls.live())  # type: ignore[attr-defined]
