"""Prints a timeline for people: one line per event, in milliseconds since the start."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape

_COLORS = {"app": "cyan", "phone": "blue", "room": "magenta", "agent": "green"}


class Timeline:
    """Prints events. `place` is the point of observation: app, phone, room or agent."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began: float | None = None

    def begin(self) -> None:
        """Starts the clock of the timeline."""
        self._began = time.monotonic()

    def show(self, place: str, what: str, at: float | None = None) -> None:
        """Prints an event; `at`: its time (`time.monotonic` seconds), by default now."""
        if self._began is None:
            raise RuntimeError("the timeline has not begun")
        milliseconds = ((time.monotonic() if at is None else at) - self._began) * 1000
        color = _COLORS.get(place, "white")
        moment = f"[bold]{milliseconds:7,.0f} ms[/]  [{color}]{place:<6}[/] {escape(what)}"
        self._console.print(moment, highlight=False, soft_wrap=True)
