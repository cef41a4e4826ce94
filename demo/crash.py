"""`make demo ARGS=--crash`: the process that carries the call is killed in mid-sentence, and another one goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import aiohttp
import numpy as np
import psutil
from numpy.typing import NDArray

from carrier_simulator import CarrierError, Fault, PhoneCall
from demo import script
from demo.connector_process import ConnectorProcess
from demo.scene import RATE, Scene
from demo.verdict import GOOD_SCORE, LONGEST_DELAY, Check, find_whole

WORKERS = 2
INTO_THE_SENTENCE = 1.2
"""Seconds of the agent's greeting before the worker is killed."""
LONGEST_GAP = 2.0
_START_PATIENCE = 40.0
_RETURN_PATIENCE = 20.0
_AFTERWARDS = 0.7
_AUDIBLE = 200
"""Peak of a frame of speech; below is silence between words, or a codec's noise."""
_FRAME = RATE // 50
_BROKEN_SOCKET = {Fault.STREAM_CLOSED}
"""The carrier's correct report that the stream's server broke the connection."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Results. Sound is int16 at 8 kHz; `said` and `heard` cover both streams, and begin with the first one."""

    carrier: str
    said: NDArray[np.int16]
    heard: NDArray[np.int16]
    killed_at: float
    """Seconds since the first stream began, like all times here."""
    silent_from: float
    silent_until: float
    """The caller heard nothing between these times; the first sound after the kill ends the gap."""
    sentence_at: int
    errors: tuple[CarrierError, ...]
    status: str

    @property
    def gap(self) -> float:
        return self.silent_until - max(self.silent_from, self.killed_at)


class CrashScene(Scene):
    async def play_crash(self) -> Crash:
        """Raises TimeoutError, with the name of the missing event, if an event does not occur."""
        async with self._cleanup() as stack:
            await _until_both_ready(self._world.connector.url)
            connect_url = await self._create()
            observer = await self._observe(stack)
            await observer.agent_joined.wait()
            call = await self._dial(connect_url, observer)
            began = await call.stream.started.wait()
            spoke = await call.first_sound.wait()
            await asyncio.sleep(spoke + INTO_THE_SENTENCE - time.monotonic())
            killed = await self._kill()
            await self._until_back(call)
            # The rest of the greeting, before the caller answers.
            await asyncio.sleep(max(0.0, spoke + len(script.greeting()) / RATE + _AFTERWARDS - time.monotonic()))
            sentence = script.sentence()
            said_at = time.monotonic() + call.saying
            call.say(sentence)
            self._timeline.show("phone", f"the caller says: {script.SENTENCE}")
            await asyncio.sleep(call.saying + _AFTERWARDS + LONGEST_DELAY)
            await self._hang_up(call, observer)
        said, heard = _joined(call, "said"), _joined(call, "heard")
        silent_from, silent_until = _silence_around(heard, killed - began)
        return Crash(
            carrier=self._world.carrier.dialect.name,
            said=said,
            heard=heard,
            killed_at=killed - began,
            silent_from=silent_from,
            silent_until=silent_until,
            sentence_at=round((said_at - began) * RATE),
            errors=tuple(call.errors),
            status=call.status.value,
        )

    async def _kill(self) -> float:
        worker, pid = carrying_worker(self._world.connector)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._timeline.show("app", f"kill -9 of the worker that carries the call ({worker}, process {pid})", killed)
        return killed

    async def _until_back(self, call: PhoneCall) -> None:
        async with asyncio.timeout(_RETURN_PATIENCE):
            # Some carriers open several sockets until one is accepted.
            while not (later := [stream for stream in call.streams[1:] if stream.started.has_come()]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        second = later[0]
        self._timeline.show("phone", "the carrier has come back: a new media stream", second.started.at)
        # If the return took longer than the rest of the greeting, the agent waits for the caller.
        with suppress(TimeoutError):
            self._timeline.show("phone", "audio from the room again", await second.first_sound.wait(LONGEST_GAP))


async def _until_both_ready(url: str) -> None:
    async with asyncio.timeout(_START_PATIENCE), aiohttp.ClientSession() as session:
        ready = 0
        while ready < WORKERS:
            async with session.get(f"{url}/readyz") as answer:
                ready = (await answer.json()).get("workers", {}).get("ready", 0)
            await asyncio.sleep(0.05)


def carrying_worker(connector: ConnectorProcess) -> tuple[str, int]:
    """Name and process id of the worker that wrote the last log line about a call."""
    lines = [json.loads(line) for line in connector.log().splitlines() if line.startswith("{")]
    name = next(line["worker"] for line in reversed(lines) if "call_id" in line and "worker" in line)
    for process in psutil.Process(connector.pid).children():
        if process.environ().get("CONNECTOR_INSTANCE") == name:
            return name, process.pid
    raise RuntimeError(f"no process of the worker {name}")


def judge_crash(crash: Crash) -> list[Check]:
    echo = find_whole(script.sentence(), crash.heard[crash.sentence_at :])
    wrong = [error for error in crash.errors if error.code not in _BROKEN_SOCKET]
    return [
        Check(
            f"the caller heard a gap of less than {LONGEST_GAP:g} s", 0 < crash.gap < LONGEST_GAP, f"{crash.gap:.2f} s"
        ),
        Check(
            "caller and agent talk on: the caller heard the echo",
            echo.score >= GOOD_SCORE and 0 < echo.delay_seconds < LONGEST_DELAY,
            f"match {echo.score:.2f}, {echo.delay_seconds * 1000:.0f} ms after it was said",
        ),
        Check(
            f"{crash.carrier} complained only of the broken socket",
            crash.status == "completed" and not wrong,
            "; ".join(f"{int(error.code)} {error.message}" for error in crash.errors) or "no errors",
        ),
    ]


def _joined(call: PhoneCall, side: str) -> NDArray[np.int16]:
    """The sound of all streams on the clock of the first one; silence between them."""
    first = call.streams[0].started.at or 0.0
    pieces = [
        (round((stream.started.at - first) * RATE), getattr(stream, side))
        for stream in call.streams
        if stream.started.at
    ]
    sound = np.zeros(max(at + len(piece) for at, piece in pieces), np.int16)
    for at, piece in pieces:
        sound[at : at + len(piece)] = piece
    return sound


def _silence_around(heard: NDArray[np.int16], moment: float) -> tuple[float, float]:
    """The last audible sample before the longest silence that touches `moment` or the second after it, and the next
    one, in seconds."""
    whole = heard[: len(heard) // _FRAME * _FRAME].reshape(-1, _FRAME)
    audible = np.flatnonzero(np.abs(whole.astype(np.int32)).max(axis=1, initial=0) > _AUDIBLE) / 50
    edges = pairwise(audible.tolist())
    near = [(a, b) for a, b in edges if b > moment and a < moment + 1.0]
    begins, ends = max(near, key=lambda edge: edge[1] - edge[0], default=(moment, len(heard) / RATE))
    return float(begins) + 0.02, float(ends)
