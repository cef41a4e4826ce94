"""Converts decoded requests to the domain model. The whole request is checked before anything is created.

Every function raises InvalidArgument, which names the field.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from connector.api.countries import COUNTRIES
from connector.api.rpc.watch_attributes import WATCH_ATTRIBUTES, agent_watch
from connector.audio import dtmf
from connector.errors import InvalidArgument
from connector.model.call import AgentDispatch, CallRequest, Direction, ParticipantSpec, new_call_id
from connector.model.provider import Provider
from connector.numbers import E164
from connector.room.join_token import fitting_name
from connectorpb.v1 import connector_pb2 as pb

# livekit-server's defaults (its config.go, "limit"): names and identities in characters, the rest in bytes.
MAX_ROOM_NAME = 256
MAX_IDENTITY = 256
MAX_NAME = 256
MAX_METADATA = 512 * 1024
MAX_ATTRIBUTES = 64 * 1024
OUR_ATTRIBUTES = 4 * 1024
"""Bytes reserved for the attributes that the connector adds."""
MAX_AGENTS = 32
RESERVED_PREFIX = "connector."

_DIRECTIONS = {
    pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_INBOUND: Direction.INBOUND,
    pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND: Direction.OUTBOUND,
}
_CALL_DIRECTIONS = {
    pb.CALL_DIRECTION_INBOUND: Direction.INBOUND,
    pb.CALL_DIRECTION_OUTBOUND: Direction.OUTBOUND,
}
MAX_DIGITS = 32
MAX_CALL_ID = 64
MIN_RING, MAX_RING = 5, 600
"""Seconds; Twilio's limits for a call's Timeout."""


PLACING = Provider.TWILIO
"""The carrier of PlaceTwilioCall."""


def twilio_call_request(request: pb.ConnectTwilioCallRequest) -> CallRequest:
    """Check a ConnectTwilioCall."""
    direction = _DIRECTIONS.get(request.twilio_call_direction)
    if direction is None:
        raise InvalidArgument("twilio_call_direction", f"{int(request.twilio_call_direction)} does not exist")
    return _call_request(Provider.TWILIO, direction, request)


def telnyx_call_request(request: pb.ConnectTelnyxCallRequest) -> CallRequest:
    """Check a ConnectTelnyxCall."""
    return _call_request(Provider.TELNYX, _direction(request.direction), request)


def plivo_call_request(request: pb.ConnectPlivoCallRequest) -> CallRequest:
    """Check a ConnectPlivoCall."""
    return _call_request(Provider.PLIVO, _direction(request.direction), request)


def _direction(value: pb.CallDirection) -> Direction:
    direction = _CALL_DIRECTIONS.get(value)
    if direction is None:
        raise InvalidArgument("direction", f"{int(value)} does not exist")
    return direction


def placed_call_request(request: pb.PlaceTwilioCallRequest) -> CallRequest:
    """Check a PlaceTwilioCall."""
    for field, number in (("to", request.to), ("from", getattr(request, "from"))):
        if not E164.fullmatch(number):
            raise InvalidArgument(field, "is not a number in E.164 form such as +15551234567")
    ring = request.ring_timeout_seconds
    if ring and not MIN_RING <= ring <= MAX_RING:
        raise InvalidArgument("ring_timeout_seconds", f"is not between {MIN_RING} and {MAX_RING}")
    return replace(_call_request(PLACING, Direction.OUTBOUND, request), placed=True)


_CallRequest = (
    pb.ConnectTwilioCallRequest | pb.ConnectTelnyxCallRequest | pb.ConnectPlivoCallRequest | pb.PlaceTwilioCallRequest
)


def _call_request(provider: Provider, direction: Direction, request: _CallRequest) -> CallRequest:
    room = room_name(request.room_name)
    identity = _text("participant_identity", request.participant_identity, MAX_IDENTITY)
    name = _text("participant_name", fitting_name(request.participant_name), MAX_NAME)
    if len(request.participant_metadata.encode()) > MAX_METADATA:
        raise InvalidArgument("participant_metadata", f"is longer than {MAX_METADATA} bytes")
    attributes = dict(request.participant_attributes)
    country = request.destination_country.upper()
    if country and country not in COUNTRIES:
        raise InvalidArgument("destination_country", "is not an ISO 3166-1 alpha-2 code such as US")
    return CallRequest(
        call_id=new_call_id(),
        provider=provider,
        direction=direction,
        room=room,
        participant=ParticipantSpec(
            identity=identity or f"{provider.value}_{secrets.token_hex(6)}",
            name=name,
            metadata=request.participant_metadata,
            attributes=_attributes({key: value for key, value in attributes.items() if key not in WATCH_ATTRIBUTES}),
        ),
        watch=agent_watch(attributes),
        agents=agents(list(request.agents)),
        destination_country=country,
    )


def room_name(value: str) -> str:
    """Checks that the name is present and not too long for LiveKit."""
    room = _text("room_name", value, MAX_ROOM_NAME)
    if not room:
        raise InvalidArgument("room_name", "is required")
    return room


def dtmf_digits(digits: str) -> str:
    """Checks for 1 to 32 DTMF digits."""
    if not 1 <= len(digits) <= MAX_DIGITS or any(digit not in dtmf.DIGITS for digit in digits):
        raise InvalidArgument("digits", f"must be 1 to {MAX_DIGITS} of {dtmf.DIGITS}")
    return digits


def call_id(value: str) -> str:
    """Checks that the id is present and not too long. It does not check whether the call exists."""
    if not value or len(value) > MAX_CALL_ID:
        raise InvalidArgument("call_id", "is required" if not value else "is too long")
    return value


def _text(field: str, value: str, limit: int) -> str:
    if len(value) > limit or len(value.encode()) > limit:
        raise InvalidArgument(field, f"is longer than {limit} bytes")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise InvalidArgument(field, "contains control characters")
    return value


def _attributes(attributes: dict[str, str]) -> dict[str, str]:
    total = 0
    for key, value in attributes.items():
        if not key:
            raise InvalidArgument("participant_attributes", "has an empty key")
        if key.startswith(RESERVED_PREFIX):
            raise InvalidArgument("participant_attributes", f"keys that start with {RESERVED_PREFIX!r} are reserved")
        total += len(key.encode()) + len(value.encode())
    if total > MAX_ATTRIBUTES - OUR_ATTRIBUTES:
        raise InvalidArgument(
            "participant_attributes", f"are larger than {MAX_ATTRIBUTES - OUR_ATTRIBUTES} bytes in all"
        )
    return attributes


def agents(wanted: list[pb.RoomAgentDispatch]) -> tuple[AgentDispatch, ...]:
    """Checks and converts the agents to dispatch, at most MAX_AGENTS."""
    if len(wanted) > MAX_AGENTS:
        raise InvalidArgument("agents", f"are more than {MAX_AGENTS}")
    for agent in wanted:
        if agent.restart_policy not in pb.JobRestartPolicy.values():
            raise InvalidArgument("agents", f"restart_policy {int(agent.restart_policy)} does not exist")
        if len(agent.metadata.encode()) > MAX_METADATA:
            raise InvalidArgument("agents", f"metadata is longer than {MAX_METADATA} bytes")
    return tuple(
        AgentDispatch(
            agent_name=_text("agents", agent.agent_name, MAX_NAME),
            metadata=agent.metadata,
            restart_policy=agent.restart_policy,
            deployment=agent.deployment,
            attributes=dict(agent.attributes),
        )
        for agent in wanted
    )
