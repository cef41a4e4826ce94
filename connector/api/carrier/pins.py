"""Counts a caller's attempts to enter a PIN.

The attempts of one call are counted in a signed token, which the carrier sends back; a caller has only a keypad and
cannot change it. The store also counts wrong PINs per caller and rule, so that a new call gives no new attempts: after
`TRIES` wrong PINs within `LOCK_OUT`, the caller is refused until `LOCK_OUT` has passed since the last one. All callers
who withhold their number count as one caller.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hmac import compare_digest

from connector.errors import TokenInvalid
from connector.model.rule import PinLock
from connector.storage.base import NameTaken, Store
from connector.tokens import TokenSigner

TRIES = 3
LOCK_OUT = 900.0
"""Seconds."""
TIME = 300.0
"""Lifetime of a PIN prompt in seconds; the carrier times out much earlier."""
_NAME = re.compile(r"pin:(\d):(.+)")


class PinTries:
    """Methods that use the store raise StoreError if it fails."""

    def __init__(self, signer: TokenSigner, store: Store) -> None:
        self._signer = signer
        self._store = store

    def mint(self, call_id: str, tried: int, now: float) -> str:
        """Returns a token with the number of wrong attempts of this call so far."""
        return self._signer.mint(f"pin:{tried}:{call_id}", now + TIME)

    def tried(self, token: str, call_id: str, now: float) -> int:
        """Returns the `tried` of `mint`. Raises TokenInvalid if the token is forged or belongs to another call,
        TokenExpired if it is too old."""
        match = _NAME.fullmatch(self._signer.verify(token, now))
        if match is None or match[2] != call_id:
            raise TokenInvalid("this PIN URL was issued for another call")
        return int(match[1])

    async def locked_out(self, rule_id: str, caller: str, now: float) -> bool:
        lock = await self._store.pin_locks.get(self._id(rule_id, caller))
        return lock is not None and lock.until > now and len(lock.tries) >= TRIES

    async def wrong(self, rule_id: str, caller: str, try_id: str, now: float) -> int:
        """Counts a wrong PIN and returns the new number. `try_id` identifies the attempt: a carrier may repeat its
        request."""
        lock_id = self._id(rule_id, caller)
        while True:
            before = await self._store.pin_locks.get(lock_id)
            if before is None or before.until <= now:
                fresh = PinLock(lock_id, now, (try_id,), now + LOCK_OUT)
            elif try_id in before.tries:
                return len(before.tries)
            else:
                fresh = replace(before, tries=(*before.tries, try_id)[-TRIES:], until=now + LOCK_OUT)
            try:
                if before is None:
                    await self._store.pin_locks.insert(fresh)
                elif not await self._store.pin_locks.replace(fresh, before):
                    continue
            except NameTaken:
                continue  # Another call of the same caller was counted at the same time.
            return len(fresh.tries)

    async def forgive(self, rule_id: str, caller: str) -> None:
        """Resets the count: the PIN was right."""
        await self._store.pin_locks.delete(self._id(rule_id, caller))

    def _id(self, rule_id: str, caller: str) -> str:
        """A fingerprint instead of the number itself, because the rule may hide the number."""
        return self._signer.fingerprint(f"pin|{rule_id}|{caller}")


async def forget_locks(store: Store, now: float) -> int:
    """Deletes expired locks; returns their number."""
    over = [lock for lock in await store.pin_locks.list() if lock.until <= now]
    return sum([await store.pin_locks.delete(lock.id) for lock in over])


def right(pin: str, digits: str) -> bool:
    """Whether these digits are the PIN."""
    return compare_digest(pin.encode(), digits.encode("utf-8", "surrogatepass"))
