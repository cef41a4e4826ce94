"""The keys that a caller presses while the carrier asks for digits."""

from __future__ import annotations

import asyncio

from carrier_simulator.verbs import Gather

_PATIENCE = 20.0


class Keypad:
    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._pressed: asyncio.Queue[str] = asyncio.Queue()
        self._gather: Gather | None = None

    @property
    def gather(self) -> Gather | None:
        """The question that waits for digits now."""
        return self._gather

    def listen(self, gather: Gather) -> None:
        """From now on digits belong to this question; those of an earlier one are forgotten."""
        while not self._pressed.empty():
            self._pressed.get_nowait()
        self._gather = gather
        self._asked.set()

    def stop_listening(self) -> None:
        self._gather = None
        self._asked.clear()

    async def asked(self) -> None:
        """Until the carrier asks a question that nobody has answered; TimeoutError after 20 s."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._asked.wait()
        except TimeoutError:
            raise TimeoutError(f"no document asked for digits within {_PATIENCE:g} s") from None

    def answered(self) -> None:
        """The question that waits has all its digits, though the carrier may not have taken them yet."""
        self._asked.clear()

    def press(self, digit: str) -> None:
        self._pressed.put_nowait(digit)

    async def collect(self, gather: Gather, prompts: asyncio.Task[None], patience: float | None) -> str:
        """The digits pressed, without the one that ends them; empty when none came in time.

        The time counts from the end of the prompts, unless a key interrupts them.
        """
        digits = ""
        first = asyncio.ensure_future(self._pressed.get())
        try:
            await asyncio.wait({first, prompts}, return_when=asyncio.FIRST_COMPLETED)
            key = await asyncio.wait_for(first, gather.first_timeout if patience is None else patience)
            while key != gather.finish_on:
                digits += key
                if len(digits) == gather.most:
                    break
                key = await asyncio.wait_for(self._pressed.get(), gather.next_timeout if patience is None else patience)
        except TimeoutError:
            pass
        finally:
            first.cancel()
        return digits
