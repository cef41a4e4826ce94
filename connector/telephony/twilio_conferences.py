"""Twilio's conferences: adds and removes a participant with a SIP address.

https://www.twilio.com/docs/voice/api/conference-participant-resource
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from connector.errors import ConnectorError, NotFound
from connector.telephony.twilio import TwilioAccounts, TwilioCalls, translated

TIMEOUT = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SipGuest:
    """The SIP participant to add to a conference, and Twilio's credentials for it."""

    uri: str
    from_: str
    username: str
    password: str = field(repr=False)


class TwilioConferences:
    """A participant is identified by its label; Twilio ensures that a label is unique in a conference.

    `account_id` is the conference's account. If it is empty, all configured accounts are searched for the conference.
    """

    def __init__(self, twilio: TwilioAccounts) -> None:
        self._twilio = twilio

    async def find(self, conference_sid: str, label: str, account_id: str = "") -> str:
        """Returns the CallSid of the participant with this label, connected or connecting; empty if there is none."""

        async def find(participants: Any) -> str:
            participant = await participants(label).fetch_async()
            return str(participant.call_sid or "")

        try:
            return await self._in_account(account_id, conference_sid, find)
        except NotFound:
            return ""

    async def add(self, conference_sid: str, label: str, guest: SipGuest, account_id: str = "") -> tuple[str, bool]:
        """Adds `guest` to the conference if it is not in it. Returns its CallSid and whether it was added now. Raises
        NotFound if the conference does not exist or has ended."""
        there = await self.find(conference_sid, label, account_id)
        if there:
            return there, False

        async def add(participants: Any) -> str:
            participant = await participants.create_async(
                from_=guest.from_,
                to=guest.uri,
                label=label,
                sip_auth_username=guest.username,
                sip_auth_password=guest.password,
            )
            return str(participant.call_sid or "")

        try:
            return await self._in_account(account_id, conference_sid, add), True
        except NotFound:
            raise NotFound(f"Twilio has no conference {conference_sid} in progress") from None
        except ConnectorError:
            # Of two concurrent requests only one succeeds, because the label is unique.
            there = await self.find(conference_sid, label, account_id)
            if there:
                return there, False
            raise

    async def remove(self, conference_sid: str, label: str, account_id: str = "") -> bool:
        """Removes the participant; returns whether there was one."""

        async def remove(participants: Any) -> None:
            await participants(label).delete_async()

        try:
            await self._in_account(account_id, conference_sid, remove)
        except NotFound:
            return False
        return True

    async def _in_account(self, account_id: str, conference_sid: str, step: Callable[[Any], Awaitable[T]]) -> T:
        """Runs `step` on the conference's participants. Raises the errors of `step`; NotFound if no account has the
        conference."""
        ids = [account_id] if account_id else self._twilio.account_ids
        for one in ids[:-1]:
            try:
                return await self._take(one, conference_sid, step)
            except NotFound:
                continue
        return await self._take(ids[-1], conference_sid, step)

    async def _take(self, account_id: str, conference_sid: str, step: Callable[[Any], Awaitable[T]]) -> T:
        async def take(twilio: TwilioCalls) -> T:
            async with translated(TIMEOUT):
                return await step(twilio.account(account_id).conferences(conference_sid).participants)

        return await self._twilio.take(account_id, take)
