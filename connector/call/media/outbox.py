"""What waits to be sent to the carrier: bounded in time; what has grown old goes, and `clear` goes at once."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from connector.call.ports import CarrierSocket


@dataclass(slots=True)
class _Message:
    text: str
    seconds: float
    kept: bool


class Outbox:
    """Messages to the carrier, sent by one task so that a slow socket never holds up the room.

    At most `limit` seconds of audio wait. Whoever would put in more starts over: a socket that has taken
    nothing for so long holds older audio still, so nothing of it shall be heard. Tones are kept through that.
    """

    def __init__(self, limit: float = 0.2) -> None:
        self._limit = limit
        self._waiting: deque[_Message] = deque()
        self._seconds = 0.0
        self._tones = 0
        self._filled = asyncio.Event()

    @property
    def seconds(self) -> float:
        """Audio that waits, without tones."""
        return self._seconds

    @property
    def tones(self) -> int:
        """Tones that wait."""
        return self._tones

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room_for(self, seconds: float) -> bool:
        return self._seconds + seconds <= self._limit + 1e-9

    def put_audio(self, text: str, seconds: float) -> None:
        """Some of the room's audio; the caller has asked `has_room_for`."""
        self._seconds += seconds
        self._put(_Message(text, seconds, kept=False))

    def put_mark(self, text: str) -> None:
        """It keeps its place behind the audio before it."""
        self._put(_Message(text, 0.0, kept=False))

    def put_tone(self, text: str) -> None:
        """Audio that must not get lost: a digit that somebody pressed."""
        self._tones += 1
        self._put(_Message(text, 0.0, kept=True))

    def _put(self, message: _Message) -> None:
        self._waiting.append(message)
        self._filled.set()

    def start_over(self, clear: str) -> int:
        """Forget the audio and the marks that wait, and send `clear` first; how many pieces of audio are lost."""
        tones = [message for message in self._waiting if message.kept]
        lost = sum(1 for message in self._waiting if message.seconds)
        self.replace_all(clear)
        self._waiting.extend(tones)
        self._tones = len(tones)
        return lost

    def replace_all(self, text: str) -> None:
        """Forget everything that waits and send this instead."""
        self._waiting.clear()
        self._seconds = 0.0
        self._tones = 0
        self._put(_Message(text, 0.0, kept=False))

    async def send_to(self, socket: CarrierSocket) -> None:
        """Send until cancelled, or until the socket is gone (then it returns: the reader sees the end too)."""
        while True:
            await self._filled.wait()
            while self._waiting:
                message = self._waiting.popleft()
                self._seconds = max(0.0, self._seconds - message.seconds)
                self._tones -= message.kept
                try:
                    await socket.send(message.text)
                except OSError:
                    return
            self._filled.clear()
