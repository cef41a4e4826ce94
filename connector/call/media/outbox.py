"""The queue of messages to the carrier. It holds a bounded time of audio; old audio is dropped, `clear` goes first."""

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
    """Messages to the carrier, sent by one task so that a slow socket never blocks the room.

    At most `limit` seconds of audio wait. The caller calls `start_over` instead of adding more: a socket that has been
    blocked so long holds even older audio, and the phone must not play that either. Tones are kept.
    """

    def __init__(self, limit: float = 0.2) -> None:
        self._limit = limit
        self._waiting: deque[_Message] = deque()
        self._seconds = 0.0
        self._tones = 0
        self._filled = asyncio.Event()

    @property
    def seconds(self) -> float:
        """Seconds of waiting audio, without tones."""
        return self._seconds

    @property
    def tones(self) -> int:
        """Number of waiting tones."""
        return self._tones

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room_for(self, seconds: float) -> bool:
        return self._seconds + seconds <= self._limit + 1e-9

    def put_audio(self, text: str, seconds: float) -> None:
        """Queue a message with audio of the room. The caller must check `has_room_for` first."""
        self._seconds += seconds
        self._put(_Message(text, seconds, kept=False))

    def put_mark(self, text: str) -> None:
        """Queue a mark behind the audio so far."""
        self._put(_Message(text, 0.0, kept=False))

    def put_tone(self, text: str) -> None:
        """Queue the tone of a digit. It is not dropped with other audio, because a pressed digit must not be lost."""
        self._tones += 1
        self._put(_Message(text, 0.0, kept=True))

    def _put(self, message: _Message) -> None:
        self._waiting.append(message)
        self._filled.set()

    def start_over(self, clear: str) -> int:
        """Drop the waiting audio and marks, and queue `clear` before the tones. Returns the number of dropped audio
        messages."""
        tones = [message for message in self._waiting if message.kept]
        lost = sum(1 for message in self._waiting if message.seconds)
        self.replace_all(clear)
        self._waiting.extend(tones)
        self._tones = len(tones)
        return lost

    def replace_all(self, text: str) -> None:
        """Drop all waiting messages, tones included, and queue `text`."""
        self._waiting.clear()
        self._seconds = 0.0
        self._tones = 0
        self._put(_Message(text, 0.0, kept=False))

    async def send_to(self, socket: CarrierSocket) -> None:
        """Send messages until cancelled. Returns if the socket is gone; its reader also sees that and ends the call."""
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
