"""Adds LiveKit SIP as a participant to a running Twilio conference, and removes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import structlog

from connector.carriers.twilio.dial import sip_uri, valid_caller_id
from connector.errors import FailedPrecondition, InvalidArgument
from connector.sip.secrets import SipSecrets
from connector.telephony.twilio_conferences import SipGuest, TwilioConferences
from connectorpb.v1 import connector_pb2 as pb

log = structlog.get_logger()

LABEL = "livekit"
"""Label of our participant in every conference."""
_CONFERENCE = re.compile(r"CF[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Bridged:
    call_sid: str
    """CallSid of the call between the conference and LiveKit SIP."""
    added: bool
    """False: it was already in the conference."""


class ConferenceBridge:
    """`conferences` is None if no Twilio account is configured; `endpoint` is empty if no LiveKit SIP is."""

    def __init__(self, conferences: TwilioConferences | None, credentials: SipSecrets, endpoint: str) -> None:
        self._conferences = conferences
        self._credentials = credentials
        self._endpoint = endpoint

    async def bridge(self, conference_sid: str, from_: str = "", number: str = "", account_id: str = "") -> Bridged:
        """Adds LiveKit SIP to the conference if it is not in it. `number`: a number that was set up; empty: the only
        one. `from_`: caller ID for LiveKit; empty: the number itself. `account_id`: the conference's account, if
        known."""
        conferences = self._ready(conference_sid)
        if not self._endpoint:
            raise FailedPrecondition("bridging a conference needs CONNECTOR_SIP_ENDPOINT")
        credentials = await (self._credentials.of(number) if number else self._credentials.only())
        caller = from_ or credentials.number
        if not valid_caller_id(caller):
            raise InvalidArgument("from", "must be a phone number, a client's name or the user part of a SIP address")
        try:
            uri = sip_uri(credentials.number, self._endpoint)
        except ValueError as error:
            raise InvalidArgument("number", str(error)) from None
        guest = SipGuest(uri, caller, credentials.username, credentials.password)
        call_sid, added = await conferences.add(conference_sid, LABEL, guest, account_id)
        return Bridged(call_sid, added)

    async def unbridge(self, conference_sid: str) -> bool:
        """Removes LiveKit; returns whether it was in the conference."""
        return await self._ready(conference_sid).remove(conference_sid, LABEL)

    def _ready(self, conference_sid: str) -> TwilioConferences:
        if not _CONFERENCE.fullmatch(conference_sid):
            raise InvalidArgument("conference_sid", "must be CF and 32 hexadecimal digits")
        if self._conferences is None:
            raise FailedPrecondition("bridging a conference needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
        return self._conferences


def log_bridged(conference_sid: str, bridged: Bridged) -> None:
    text = "conference bridged" if bridged.added else "conference was bridged already"
    log.info(text, conference=conference_sid, carrier_call=bridged.call_sid)


class ConferenceRpc:
    """The RPCs for conferences; see `connector.api.rpc.methods`."""

    def __init__(self, bridge: ConferenceBridge) -> None:
        self._bridge = bridge

    async def bridge(self, request: pb.BridgeTwilioConferenceRequest) -> pb.BridgeTwilioConferenceResponse:
        bridged = await self._bridge.bridge(request.conference_sid, getattr(request, "from"), request.number)
        log_bridged(request.conference_sid, bridged)
        return pb.BridgeTwilioConferenceResponse(call_sid=bridged.call_sid, added=bridged.added)

    async def unbridge(self, request: pb.UnbridgeTwilioConferenceRequest) -> pb.UnbridgeTwilioConferenceResponse:
        removed = await self._bridge.unbridge(request.conference_sid)
        log.info(
            "conference no longer bridged" if removed else "conference was not bridged",
            conference=request.conference_sid,
        )
        return pb.UnbridgeTwilioConferenceResponse(removed=removed)
