"""The carrier's SIP credentials for LiveKit SIP. They are sealed: the store alone does not reveal a password."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from connector.errors import FailedPrecondition, Internal
from connector.logs import never_log
from connector.model.connector import SipNumber
from connector.seal import Seal, SealBroken, several

_PURPOSE = "connector sip password v1"
"""Makes the derived key different from the keys for other uses of the same secret."""


class SipNumbers(Protocol):
    """See `connector.storage.base.Collection`."""

    async def insert(self, document: SipNumber) -> None: ...
    async def replace(self, document: SipNumber, expected: SipNumber | None = None) -> bool: ...
    async def delete(self, document_id: str) -> bool: ...
    async def get(self, document_id: str) -> SipNumber | None: ...
    async def list(self) -> list[SipNumber]: ...


@dataclass(frozen=True, slots=True)
class SipCredentials:
    """The credentials that `<Sip>` needs for calls to one number."""

    number: str
    trunk_id: str
    username: str
    password: str = field(repr=False)


class SipSecrets:
    """The numbers that were set up. Processes with the same secret can read each other's passwords."""

    def __init__(self, numbers: SipNumbers, secret: str | Sequence[str]) -> None:
        """The newest secret first; see `connector.seal`."""
        self._seal = Seal(several(secret), _PURPOSE)
        self._numbers = numbers

    async def remember(self, credentials: SipCredentials) -> None:
        kept = await self._numbers.get(credentials.number)
        if kept is not None and self._same(kept, credentials):
            return
        sealed = self._seal.close(credentials.password)
        number = SipNumber(credentials.number, credentials.trunk_id, credentials.username, sealed, time.time())
        if not await self._numbers.replace(number):
            await self._numbers.insert(number)

    async def remember_trunk(self, credentials: SipCredentials) -> None:
        """As `remember`, and updates the other numbers of the same trunk, which share the credentials."""
        await self.remember(credentials)
        for kept in await self._numbers.list():
            if kept.trunk_id == credentials.trunk_id:
                await self.remember(replace(credentials, number=kept.id))

    async def forget(self, number: str) -> bool:
        return await self._numbers.delete(number)

    async def of(self, number: str) -> SipCredentials:
        """Raises FailedPrecondition, with the command to run, if the number is not set up."""
        kept = await self._numbers.get(number)
        if kept is None:
            raise FailedPrecondition("the number has no SIP credentials here; run: connector sip setup --number …")
        return self._open(kept)

    async def all(self) -> list[SipCredentials]:
        return [self._open(kept) for kept in await self._numbers.list()]

    async def only(self) -> SipCredentials:
        """Returns the credentials of the only number. Raises FailedPrecondition if there are none or several."""
        kept = await self._numbers.list()
        if len(kept) != 1:
            found = "no number is" if not kept else f"{len(kept)} numbers are"
            raise FailedPrecondition(f"{found} set up with `connector sip setup`: choose one with --number")
        return self._open(kept[0])

    async def reseal(self) -> int:
        """Seals passwords of an older secret with the newest one; returns their number."""
        stale = [kept for kept in await self._numbers.list() if not self._seal.is_current(kept.sealed_password)]
        written = 0
        for kept in stale:
            try:
                password = self._seal.open(kept.sealed_password)
            except SealBroken:
                continue  # `of` reports the error when the password is needed.
            written += await self._numbers.replace(replace(kept, sealed_password=self._seal.close(password)), kept)
        return written

    def _same(self, kept: SipNumber, credentials: SipCredentials) -> bool:
        try:
            return self._open(kept) == credentials
        except Internal:
            return False

    def _open(self, kept: SipNumber) -> SipCredentials:
        try:
            password = self._seal.open(kept.sealed_password)
        except SealBroken:
            raise Internal(
                "a stored SIP password was sealed with another secret; run `connector sip setup` again"
            ) from None
        never_log(password)
        return SipCredentials(kept.id, kept.trunk_id, kept.username, password)
