"""Opens a call: creates its resources, before its stream comes."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext

import structlog

from connector.call.dependencies import CallDependencies, why_not_opened
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.lifetime import Lifetime
from connector.call.session.presence import Presence
from connector.call.session.wait import Wait
from connector.errors import Unavailable
from connector.model.call import CallRequest, Direction

log = structlog.get_logger()

OPEN_BUDGET = 4.0
"""Time limit in seconds for all steps before the client is answered, together. Counted from the call's turn to join."""
OPEN_LIMIT = 4.7
"""Latest moment, in seconds, at which the request for a failed call is answered. Clean-up may continue in the
background."""


async def open_call(
    life: Lifetime, parts: CallDependencies, recorder: CallRecorder, presence: Presence, wait: Wait
) -> None:
    """See `CallSession.open`."""
    request, loop = recorder.request, asyncio.get_running_loop()
    began, queued = loop.time(), time.monotonic()
    try:
        async with _turn(parts, request):
            recorder.observe("queue", queued)
            began = loop.time()
            await _create_in_time(life, parts, recorder, presence, wait)
    except BaseException as error:
        life.end(*why_not_opened(error))
        await life.until_finished(max(0.0, began + OPEN_LIMIT - loop.time()))
        raise
    log.info(
        "call created",
        provider=request.provider.value,
        direction=request.direction.value,
        room=request.room,
        identity=request.participant.identity,
        agents=[agent.agent_name for agent in request.agents],
    )


def _turn(parts: CallDependencies, request: CallRequest) -> AbstractAsyncContextManager[None]:
    """Only an outbound call joins the room before its stream starts, so only it needs a turn here."""
    is_outbound = request.direction is Direction.OUTBOUND
    return parts.joins.new_call(request.call_id) if is_outbound else nullcontext()


async def _create_in_time(
    life: Lifetime, parts: CallDependencies, recorder: CallRecorder, presence: Presence, wait: Wait
) -> None:
    try:
        async with asyncio.timeout(OPEN_BUDGET):
            # `share` comes first. If two calls use one identity, only the one that holds it in the store may join. If
            # several processes are asked for the same call, only the one that holds it may write its record.
            if recorder.request.direction is Direction.OUTBOUND:
                await wait.share()
                await presence.wait_hidden(recorder.attributes("ringing"))
                if life.is_ending:
                    raise Unavailable("the caller was removed from the room right after the join")
            else:
                await parts.admin.check()
                await wait.share()
            recorder.open()
            await parts.store.save_call(recorder.record)
    except TimeoutError as error:
        raise Unavailable(f"LiveKit and the store took longer than {OPEN_BUDGET:g} s together") from error
