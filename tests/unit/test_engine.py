"""The SDK's media engine, whose clock is a thread of the process: who is let in, and which room is held."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from livekit import rtc

from connector.errors import Unavailable
from connector.room import engine as module
from connector.room.engine import MediaEngine


class Threads:
    """Those of a process, as Linux shows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.add(1, "python")

    def add(self, number: int, name: str) -> None:
        (self._folder / str(number)).mkdir()
        # Fifteen characters are what Linux keeps of a name.
        (self._folder / str(number) / "comm").write_text(f"{name[:15]}\n")

    def end(self, number: int) -> None:
        (self._folder / str(number) / "comm").unlink()


class Room:
    def __init__(self, connected: bool = False) -> None:
        self._connected = connected

    def isconnected(self) -> bool:
        return self._connected


def room(connected: bool = False) -> rtc.Room:
    return cast(rtc.Room, Room(connected))


@pytest.fixture
def threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Threads:
    monkeypatch.setattr(module, "_THREADS", str(tmp_path))
    return Threads(tmp_path)


async def test_nobody_is_let_in_while_the_clock_is_lost(threads: Threads) -> None:
    engine = MediaEngine()
    threads.add(2, "SyntheticAudioDevice")
    await engine.require_clock()
    threads.end(2)
    with pytest.raises(Unavailable, match="lost its audio clock"):
        await engine.require_clock()
    threads.add(3, "SyntheticAudioDevice")
    await engine.require_clock()


async def test_where_the_clock_was_never_seen_everybody_is_let_in(threads: Threads) -> None:
    await MediaEngine().require_clock()


async def test_where_threads_cannot_be_seen_everybody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_THREADS", "/there/is/no/such/folder")
    await MediaEngine().require_clock()


async def test_the_first_room_that_was_left_is_held(threads: Threads) -> None:
    engine = MediaEngine()
    threads.add(2, "SyntheticAudioDevice")
    first = room()
    await engine.left(room(connected=True))
    await engine.left(first)
    await engine.left(room())
    assert engine._held is first
    assert engine.is_held


async def test_a_room_without_a_clock_is_not_held(threads: Threads) -> None:
    engine = MediaEngine()
    await engine.left(room())
    assert not engine.is_held
