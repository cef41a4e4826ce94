"""The table of the RPCs of both services, shared by all transports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from livekit.protocol import connector as livekit_connector
from livekit.protocol import connector_whatsapp

from connector.api.carrier.conferences import ConferenceRpc
from connector.api.rpc.service import ConnectorService
from connector.errors import Unimplemented
from connectorpb.v1 import connector_pb2 as pb

# The name comes from the descriptor because gRPC reflection finds a service only if its module is imported.
LIVEKIT_SERVICE: str = livekit_connector.DESCRIPTOR.services_by_name["Connector"].full_name
OUR_SERVICE = "connector.v1.Connector"
_WHATSAPP = ("DialWhatsAppCall", "DisconnectWhatsAppCall", "ConnectWhatsAppCall", "AcceptWhatsAppCall")

Handler = Callable[[Any], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    service: str
    name: str
    handler: Handler
    request: type[Message]
    response: type[Message]


def methods(service: ConnectorService, conferences: ConferenceRpc) -> list[Method]:
    """`livekit.Connector` is the service in LiveKit's SDKs; `connector.v1.Connector` has all our own methods."""
    ours: dict[str, Handler] = {
        "ConnectTwilioCall": service.connect_twilio_call,
        "ConnectTelnyxCall": service.connect_telnyx_call,
        "ConnectPlivoCall": service.connect_plivo_call,
        "PlaceTwilioCall": service.place_twilio_call,
        "ListCalls": service.list_calls,
        "GetCall": service.get_call,
        "EndCall": service.end_call,
        "SendDtmf": service.send_dtmf,
        "ClearAudio": service.clear_audio,
        "SwitchRoom": service.switch_room,
        "TransferCall": service.transfer_call,
        "BridgeTwilioConference": conferences.bridge,
        "UnbridgeTwilioConference": conferences.unbridge,
    }
    table = [_ours(OUR_SERVICE, name, handler) for name, handler in ours.items()]
    table.append(_ours(LIVEKIT_SERVICE, "ConnectTwilioCall", service.connect_twilio_call))
    for name in _WHATSAPP:
        request = getattr(connector_whatsapp, f"{name}Request")
        response = getattr(connector_whatsapp, f"{name}Response")
        table.append(Method(LIVEKIT_SERVICE, name, _unimplemented(name), request, response))
    return table


def _ours(service: str, name: str, handler: Handler) -> Method:
    return Method(service, name, handler, getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response"))


def _unimplemented(name: str) -> Handler:
    async def refuse(_: Any) -> Message:
        raise Unimplemented(f"{name}: this connector serves phone carriers, not WhatsApp")

    return refuse
