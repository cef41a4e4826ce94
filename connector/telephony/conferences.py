"""Twilio's conferences: somebody at a SIP address comes in, and goes again.

https://www.twilio.com/docs/voice/api/conference-participant-resource
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from connector.errors import ConnectorError, NotFound
from connector.telephony.twilio import TwilioAccounts, TwilioCalls, translated

TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class SipGuest:
    """Whom to call into a conference, and with what Twilio signs in there."""

    uri: str
    from_: str
    username: str
    password: str = field(repr=False)


class TwilioConferences:
    """A participant is known by its label, of which Twilio keeps each unique within a conference."""

    def __init__(self, twilio: TwilioAccounts) -> None:
        self._twilio = twilio

    async def find(self, conference_sid: str, label: str) -> str:
        """The CallSid of the participant with this label, connected or on its way; empty when there is none."""

        async def find(twilio: TwilioCalls) -> str:
            async with translated(TIMEOUT):
                participant = await _participants(twilio, conference_sid)(label).fetch_async()
                return str(participant.call_sid or "")

        try:
            return await self._twilio.take("", find)
        except NotFound:
            return ""

    async def add(self, conference_sid: str, label: str, guest: SipGuest) -> tuple[str, bool]:
        """Call `guest` into the conference unless it is there: its CallSid, and whether it was added just now.
        NotFound when the conference does not exist or has ended."""
        there = await self.find(conference_sid, label)
        if there:
            return there, False

        async def add(twilio: TwilioCalls) -> str:
            async with translated(TIMEOUT):
                participant = await _participants(twilio, conference_sid).create_async(
                    from_=guest.from_,
                    to=guest.uri,
                    label=label,
                    sip_auth_username=guest.username,
                    sip_auth_password=guest.password,
                )
                return str(participant.call_sid or "")

        try:
            return await self._twilio.take("", add), True
        except NotFound:
            raise NotFound(f"Twilio knows no conference {conference_sid} that is in progress") from None
        except ConnectorError:
            # Two who ask at once: the label lets one in.
            there = await self.find(conference_sid, label)
            if there:
                return there, False
            raise

    async def remove(self, conference_sid: str, label: str) -> bool:
        """Whether there was anybody to remove."""

        async def remove(twilio: TwilioCalls) -> None:
            async with translated(TIMEOUT):
                await _participants(twilio, conference_sid)(label).delete_async()

        try:
            await self._twilio.take("", remove)
        except NotFound:
            return False
        return True


def _participants(twilio: TwilioCalls, conference_sid: str) -> Any:
    return twilio.client.conferences(conference_sid).participants
