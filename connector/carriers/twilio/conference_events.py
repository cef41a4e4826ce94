"""Twilio's reports on conferences. https://www.twilio.com/docs/voice/twiml/conference#attributes-statuscallback"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_FIRST = ("", "0", "1")
"""Values of SequenceNumber in a conference's first event; Twilio counts from 1."""


@dataclass(frozen=True, slots=True)
class ConferenceEvent:
    """One event of a conference. Fields that the request does not have are empty."""

    conference_sid: str
    account_id: str
    name: str
    begins: bool
    """Whether the conference started or its first participant joined. Later joins do not count."""
    label: str
    """Label of the participant that the event is about."""


def conference_event(fields: Mapping[str, str]) -> ConferenceEvent:
    event = fields.get("StatusCallbackEvent", "")
    first = event == "participant-join" and fields.get("SequenceNumber", "") in _FIRST
    return ConferenceEvent(
        conference_sid=fields.get("ConferenceSid", ""),
        account_id=fields.get("AccountSid", ""),
        name=fields.get("FriendlyName", ""),
        begins=event == "conference-start" or first,
        label=fields.get("ParticipantLabel", ""),
    )
