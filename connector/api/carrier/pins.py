"""A caller's tries at a PIN.

Those of one call are counted in a token that goes to the carrier and back, sealed by us: a caller, who has nothing but
a keypad, cannot touch it. Wrong PINs are counted in the store as well, by caller and rule, so that calling again gives
no new tries: after `TRIES` within `LOCK_OUT` the caller is refused until that has passed since the last one. All
callers who withhold their number count as one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hmac import compare_digest
from typing import Protocol

from connector.errors import TokenInvalid
from connector.model import PinLock
from connector.storage.base import Collection, NameTaken
from connector.tokens import TokenSigner

TRIES = 3
LOCK_OUT = 900.0
"""Seconds."""
TIME = 300.0
"""Seconds that a question may wait for its answer; the carrier gives up long before."""
_NAME = re.compile(r"pin:(\d):(.+)")


class LockStore(Protocol):
    """See `connector.storage.base.Store`."""

    @property
    def pin_locks(self) -> Collection[PinLock]: ...


class PinTries:
    """Every method that counts raises StoreError when the store fails."""

    def __init__(self, signer: TokenSigner, store: LockStore) -> None:
        self._signer = signer
        self._store = store

    def mint(self, call_id: str, tried: int, now: float) -> str:
        """A token that says how often this call has been asked in vain."""
        return self._signer.mint(f"pin:{tried}:{call_id}", now + TIME)

    def tried(self, token: str, call_id: str, now: float) -> int:
        """What `mint` was told. TokenInvalid when it is not ours or another call's, TokenExpired when it is too old."""
        match = _NAME.fullmatch(self._signer.verify(token, now))
        if match is None or match[2] != call_id:
            raise TokenInvalid("this is not a question that was asked of this call")
        return int(match[1])

    async def locked_out(self, rule_id: str, caller: str, now: float) -> bool:
        lock = await self._store.pin_locks.get(self._id(rule_id, caller))
        return lock is not None and lock.until > now and len(lock.tries) >= TRIES

    async def wrong(self, rule_id: str, caller: str, try_id: str, now: float) -> int:
        """Count a wrong PIN; how many that makes. `try_id`: a carrier may send the same digits twice."""
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
                continue  # Another call of the same caller was counted in between.
            return len(fresh.tries)

    async def forgive(self, rule_id: str, caller: str) -> None:
        """The PIN was right."""
        await self._store.pin_locks.delete(self._id(rule_id, caller))

    def _id(self, rule_id: str, caller: str) -> str:
        """The number itself is not kept: the rule may hide it."""
        return self._signer.fingerprint(f"pin|{rule_id}|{caller}")


async def forget_locks(store: LockStore, now: float) -> int:
    """Delete those that are over; how many."""
    over = [lock for lock in await store.pin_locks.list() if lock.until <= now]
    return sum([await store.pin_locks.delete(lock.id) for lock in over])


def right(pin: str, digits: str) -> bool:
    """Whether these digits are the PIN."""
    return compare_digest(pin.encode(), digits.encode("utf-8", "surrogatepass"))
