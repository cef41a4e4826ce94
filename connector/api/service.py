"""The use cases, free of any transport: Twirp and gRPC call these with decoded requests."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from connector.api.countries import COUNTRIES
from connector.call.manager import CallManager
from connector.errors import InvalidArgument
from connector.model import AgentDispatch, CallRequest, Direction, ParticipantSpec, Provider, new_call_id
from connector.tokens import TokenSigner
from connectorpb.v1 import connector_pb2 as pb

# livekit-server's defaults (its config.go, "limit"): names and identities in characters, the rest in bytes.
MAX_ROOM_NAME = 256
MAX_IDENTITY = 256
MAX_NAME = 256
MAX_METADATA = 512 * 1024
MAX_ATTRIBUTES = 64 * 1024
OUR_ATTRIBUTES = 4 * 1024
"""Room kept for the attributes that the connector adds."""
MAX_AGENTS = 32
RESERVED_PREFIX = "connector."

_DIRECTIONS = {
    pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_INBOUND: Direction.INBOUND,
    pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND: Direction.OUTBOUND,
}


class ConnectorService:
    """`livekit.Connector` and `connector.v1.Connector`."""

    def __init__(self, calls: CallManager, signer: TokenSigner, public_origin: str) -> None:
        self._calls = calls
        self._signer = signer
        self._public_origin = public_origin

    async def connect_twilio_call(self, request: pb.ConnectTwilioCallRequest) -> pb.ConnectTwilioCallResponse:
        """Create a call and hand out its connect_url. Raises InvalidArgument before anything is created."""
        call = await self._calls.create(twilio_call_request(request))
        token = self._signer.mint(call.call_id, call.deadline)
        return pb.ConnectTwilioCallResponse(connect_url=self.connect_url(Provider.TWILIO, token))

    def connect_url(self, provider: Provider, token: str) -> str:
        """`wss://<public>/<provider>/<token>`; `ws` where the public URL is plain http."""
        scheme, rest = self._public_origin.split("://", 1)
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/{provider.value}/{token}"


def public_path(public_origin: str) -> str:
    """The path in front of ours when the public URL has one, e.g. `/voice`; empty otherwise."""
    return urlsplit(public_origin).path.rstrip("/")


def twilio_call_request(request: pb.ConnectTwilioCallRequest) -> CallRequest:
    """Check a request whole and turn it into the domain's words. InvalidArgument names the field."""
    direction = _DIRECTIONS.get(request.twilio_call_direction)
    if direction is None:
        raise InvalidArgument("twilio_call_direction", f"{int(request.twilio_call_direction)} does not exist")
    room = _text("room_name", request.room_name, MAX_ROOM_NAME)
    if not room:
        raise InvalidArgument("room_name", "is required")
    identity = _text("participant_identity", request.participant_identity, MAX_IDENTITY)
    name = _text("participant_name", request.participant_name, MAX_NAME)
    if len(request.participant_metadata.encode()) > MAX_METADATA:
        raise InvalidArgument("participant_metadata", f"is longer than {MAX_METADATA} bytes")
    country = request.destination_country.upper()
    if country and country not in COUNTRIES:
        raise InvalidArgument("destination_country", "is not an ISO 3166-1 alpha-2 code such as US")
    return CallRequest(
        call_id=new_call_id(),
        provider=Provider.TWILIO,
        direction=direction,
        room=room,
        participant=ParticipantSpec(
            identity=identity or f"{Provider.TWILIO.value}_{secrets.token_hex(6)}",
            name=name,
            metadata=request.participant_metadata,
            attributes=_attributes(dict(request.participant_attributes)),
        ),
        agents=_agents(list(request.agents)),
        destination_country=country,
    )


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


def _agents(agents: list[pb.RoomAgentDispatch]) -> tuple[AgentDispatch, ...]:
    if len(agents) > MAX_AGENTS:
        raise InvalidArgument("agents", f"are more than {MAX_AGENTS}")
    for agent in agents:
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
        for agent in agents
    )
