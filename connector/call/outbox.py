"""What waits to be sent to the carrier: bounded in time, the oldest goes first, `clear` goes at once."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from connector.call.ports import CarrierSocket


@dataclass(slots=True)
class _Message:
    text: str
    seconds: float


class Outbox:
    """Messages to the carrier, sent by one task so that a slow socket never holds up the room.

    At most `limit` seconds of audio wait; past that the oldest goes and is counted in `dropped`. Marks and
    clears carry no audio and are never dropped.
    """

    def __init__(self, limit: float = 0.2) -> None:
        self._limit = limit
        self._waiting: deque[_Message] = deque()
        self._seconds = 0.0
        self._filled = asyncio.Event()
        self.dropped = 0

    @property
    def seconds(self) -> float:
        """Audio that waits."""
        return self._seconds

    def put_audio(self, text: str, seconds: float) -> None:
        self._waiting.append(_Message(text, seconds))
        self._seconds += seconds
        while self._seconds > self._limit + 1e-9 and self._drop_oldest_audio(keep=seconds):
            pass
        self._filled.set()

    def _drop_oldest_audio(self, keep: float) -> bool:
        for index, message in enumerate(self._waiting):
            if message.seconds and index < len(self._waiting) - 1:
                del self._waiting[index]
                self._seconds -= message.seconds
                self.dropped += 1
                return True
        return False

    def put_control(self, text: str) -> None:
        """A message that keeps its place behind the audio before it, e.g. a mark."""
        self._waiting.append(_Message(text, 0.0))
        self._filled.set()

    def replace_all(self, text: str) -> None:
        """Forget everything that waits and send this instead."""
        self._waiting.clear()
        self._seconds = 0.0
        self.put_control(text)

    async def send_to(self, socket: CarrierSocket) -> None:
        """Send until cancelled, or until the socket is gone (then it returns: the reader sees the end too)."""
        while True:
            await self._filled.wait()
            while self._waiting:
                message = self._waiting.popleft()
                self._seconds = max(0.0, self._seconds - message.seconds)
                try:
                    await socket.send(message.text)
                except OSError:
                    return
            self._filled.clear()
