"""Processes that race for a call whose stream, or whose process, is lost: one gets it, and it ends once.

The rounds are made up by hypothesis. The processes are call managers with a connection to the store of their own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.call.session.call_session import CallSession
from connector.call.session.returns import MOST_RETURNS, ResumeVerdict
from connector.errors import ConnectorError
from connector.model.call import CallState, Direction
from connector.model.end_reason import EndReason
from connector.storage.base import Store
from tests.unit.call.fakes import LIMITS, FakeSocket, World
from tests.unit.call.freezing import freeze

RESUMING = replace(LIMITS, resume_grace=5.0)
PROCESSES = 3
PATIENCE = 10.0
CALL = "call_1"
EXAMPLES = 12 if os.environ.get("CI") else 4
"""An example takes most of a second: processes that come too late wait for the entry before they give up."""


@dataclass(frozen=True)
class Round:
    """How the stream is lost, and the processes that its carrier reaches, all at once."""

    is_killed: bool
    visits: tuple[int, ...]
    sockets: tuple[int, ...]


ROUNDS = st.lists(
    st.builds(
        Round,
        st.booleans(),
        st.lists(st.integers(0, PROCESSES - 1), min_size=1, max_size=3).map(tuple),
        st.lists(st.integers(0, PROCESSES - 1), min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=MOST_RETURNS,
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


def is_written(call: CallSession) -> bool:
    """The client of Redis may go on with a request that was cancelled; a killed process sends nothing any more."""
    writing = call.wait._writer._task
    return call.wait.stored.is_written and (writing is None or writing.done())


class Processes:
    def __init__(self, stores: list[Store]) -> None:
        self.worlds: list[World] = []
        self._stores = stores
        for store in stores:
            self._begin(store)

    def _begin(self, store: Store) -> World:
        self.worlds.append(
            World(Direction.INBOUND, limits=RESUMING, owner=f"process {len(self.worlds)}", store=store)  # type: ignore[arg-type]
        )
        return self.worlds[-1]

    def told(self, event: str) -> int:
        return sum(world.lifecycle.events.count(event) for world in self.worlds)

    async def stream(self, call: CallSession) -> tuple[FakeSocket, asyncio.Task[None]]:
        socket = FakeSocket(self.worlds[0].faults)
        carrying = asyncio.create_task(call.carry(socket))
        socket.feed("connected", "start")
        await until(lambda: call.state is CallState.ACTIVE and not call.returns.is_open)
        return socket, carrying

    async def run(self, rounds: list[Round]) -> None:
        owner = self.worlds[0]
        call = await owner.manager.create(owner.request(CALL))
        await owner.manager.claim(CALL, 1)
        socket, carrying = await self.stream(call)
        for number, each in enumerate(rounds, start=1):
            alive = list(self.worlds)
            if each.is_killed:
                await until(partial(is_written, call))
                await freeze(owner, call, carrying)
                alive = [world for world in self.worlds if world is not owner] + [self._begin(owner.store)]  # type: ignore[arg-type]
            else:
                socket.hang_up(cleanly=False)
                await carrying
            reached = [alive[index % len(alive)] for index in each.visits]
            answers = await asyncio.gather(
                *(world.manager.resume(CALL, number, carrier_let_go=True) for world in reached)
            )
            assert {(answer.verdict, answer.stream) for answer in answers} == {(ResumeVerdict.STREAM, number + 1)}
            claims = [alive[index % len(alive)] for index in each.sockets]
            outcomes = await asyncio.gather(
                *(world.manager.claim(CALL, number + 1) for world in claims), return_exceptions=True
            )
            granted = [outcome for outcome in outcomes if isinstance(outcome, CallSession)]
            assert len(granted) == 1, outcomes
            refused = [outcome for outcome in outcomes if not isinstance(outcome, CallSession)]
            assert all(isinstance(outcome, ConnectorError) for outcome in refused), refused
            former, formers_world = call, owner
            (call,) = granted
            owner = claims[outcomes.index(call)]
            socket, carrying = await self.stream(call)
            if call is not former and not each.is_killed:
                formers_world.rooms[-1].goes(EndReason.DUPLICATE_IDENTITY)
                await former.finished.wait()
        socket.feed("stop")
        await carrying
        assert (self.told("call-answered"), self.told("call-hangup")) == (1, 1)
        assert sum(sum(world.counted().values()) for world in self.worlds) == 1
        assert await self._stores[0].waiting.list() == []


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=ROUNDS)
def test_a_lost_call_is_carried_on_by_one_process_and_ends_once(make: Callable[[], Store], rounds: list[Round]) -> None:
    async def run() -> None:
        stores = [make() for _ in range(PROCESSES)]
        for store in stores:
            await store.open()
        try:
            await Processes(stores).run(rounds)
        finally:
            for store in stores:
                # The next example begins with an empty store: its call has the same id.
                await store.waiting.delete(CALL)
                await store.forget_before(4e9)
                await store.close()

    asyncio.run(run())
