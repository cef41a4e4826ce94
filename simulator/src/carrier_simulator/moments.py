"""A moment of a call that others wait for."""

from __future__ import annotations

import asyncio
import time


class Moment:
    """Comes at most once; remembers when (`time.monotonic` seconds, the clock of a call's whole timeline)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at: float | None = None
        self._event = asyncio.Event()

    def come(self) -> None:
        """The moment is now; the second and later times change nothing."""
        if self.at is None:
            self.at = time.monotonic()
            self._event.set()

    def has_come(self) -> bool:
        return self.at is not None

    async def wait(self, timeout: float | None = 20.0) -> float:  # noqa: ASYNC109 - a test names its patience here
        """Return when it came; raise TimeoutError, naming the moment, when it does not come in time (None: never)."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            raise TimeoutError(f"{self.name} did not come within {timeout:g} s") from None
        assert self.at is not None
        return self.at
