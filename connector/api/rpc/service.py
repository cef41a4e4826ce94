"""The use cases, independent of the transport: Twirp and gRPC call them with decoded requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from connector.api.origins import Origins
from connector.api.resume_urls import ResumeUrls
from connector.api.rpc import requests
from connector.api.rpc.messages import call_filter, call_message, page_token
from connector.call.registry.control import CallControl, TransferWish
from connector.call.registry.manager import CallManager
from connector.call.session.call_session import CallSession
from connector.carriers.carrier import Carriers
from connector.errors import ConnectorError, FailedPrecondition
from connector.model.call import CallRequest
from connector.model.end_reason import EndReason
from connector.storage.base import Store
from connector.telephony.twilio import TwilioAccounts
from connector.tokens import TokenSigner
from connectorpb.v1 import connector_pb2 as pb

log = structlog.get_logger()

ANSWER_MARGIN = 10.0
"""Seconds after the ringing time to wait for the last status callback."""


class ConnectorService:
    """Implements `livekit.Connector` and `connector.v1.Connector`. The methods raise only ConnectorError."""

    def __init__(
        self,
        calls: CallManager,
        control: CallControl,
        store: Store,
        signer: TokenSigner,
        carriers: Carriers,
        origins: Origins,
        connect_timeout: float,
        placer: TwilioAccounts | None,
        resume_urls: ResumeUrls,
    ) -> None:
        self._calls = calls
        self._control = control
        self._store = store
        self._signer = signer
        self._carriers = carriers
        self._origins = origins
        self._connect_timeout = connect_timeout
        self._placer = placer
        self._resume_urls = resume_urls

    async def connect_twilio_call(self, request: pb.ConnectTwilioCallRequest) -> pb.ConnectTwilioCallResponse:
        """Creates a call and returns its connect_url. Raises InvalidArgument before anything is created."""
        return pb.ConnectTwilioCallResponse(connect_url=await self._connect(requests.twilio_call_request(request)))

    async def connect_telnyx_call(self, request: pb.ConnectTelnyxCallRequest) -> pb.ConnectTelnyxCallResponse:
        """The same for Telnyx."""
        return pb.ConnectTelnyxCallResponse(connect_url=await self._connect(requests.telnyx_call_request(request)))

    async def connect_plivo_call(self, request: pb.ConnectPlivoCallRequest) -> pb.ConnectPlivoCallResponse:
        """The same for Plivo."""
        return pb.ConnectPlivoCallResponse(connect_url=await self._connect(requests.plivo_call_request(request)))

    async def _connect(self, request: CallRequest) -> str:
        return self._stream_url(await self._calls.create(self._in_its_region(request)))

    def _in_its_region(self, request: CallRequest) -> CallRequest:
        return replace(request, region=self._origins.region(request.region, request.destination_country))

    async def place_twilio_call(self, request: pb.PlaceTwilioCallRequest) -> pb.PlaceTwilioCallResponse:
        """Creates a call and asks Twilio to dial. If Twilio refuses, everything is undone."""
        if self._placer is None:
            raise FailedPrecondition(f"placing calls needs {self._carriers[requests.PLACING].rest_settings}")
        checked = self._in_its_region(requests.placed_call_request(request))
        ring = request.ring_timeout_seconds or round(
            min(max(self._connect_timeout, requests.MIN_RING), requests.MAX_RING)
        )
        call = await self._calls.create(checked)
        await call.extend_deadline(ring + ANSWER_MARGIN)
        try:
            await self._dial(self._placer, call, request, ring)
            if request.wait_until_answered:
                await asyncio.wait_for(call.settled.wait(), ring + 2 * ANSWER_MARGIN)
        except TimeoutError:
            call.end(EndReason.NO_ANSWER, "the carrier did not report the outcome of the call")
            await call.finished.wait()
        except asyncio.CancelledError:
            call.end(EndReason.CANCELED, "the client cancelled the request that placed the call")
            raise
        except ConnectorError as error:
            call.end(EndReason.CARRIER_FAILED, error.message)
            await call.finished.wait()
            raise
        except BaseException as error:
            call.end(EndReason.INTERNAL_ERROR, repr(error))
            raise
        return pb.PlaceTwilioCallResponse(call=call_message(call.record))

    async def _dial(
        self, placer: TwilioAccounts, call: CallSession, request: pb.PlaceTwilioCallRequest, ring: int
    ) -> None:
        from_number: str = getattr(request, "from")
        url = "http" + self._stream_url(call).removeprefix("ws")
        await call.dial(
            lambda: placer.place(request.to, from_number, url, f"{url}/status", ring), from_number, request.to
        )

    async def list_calls(self, request: pb.ListCallsRequest) -> pb.ListCallsResponse:
        where, size = call_filter(request)
        records = await self._store.list_calls(size + 1, where)
        shown = [self._control.freshest(record) for record in records[:size]]
        return pb.ListCallsResponse(
            calls=[call_message(record) for record in shown],
            next_page_token=page_token(records[size - 1]) if len(records) > size else "",
        )

    async def get_call(self, request: pb.GetCallRequest) -> pb.GetCallResponse:
        record = await self._control.record(requests.call_id(request.call_id))
        return pb.GetCallResponse(call=call_message(record, await self._resume_urls.of(record)))

    async def end_call(self, request: pb.EndCallRequest) -> pb.EndCallResponse:
        """Ends both legs and waits for the end of the teardown."""
        return pb.EndCallResponse(call=call_message(await self._control.end(requests.call_id(request.call_id))))

    async def send_dtmf(self, request: pb.SendDtmfRequest) -> pb.SendDtmfResponse:
        digits = requests.dtmf_digits(request.digits)
        await self._control.send_dtmf(requests.call_id(request.call_id), digits)
        return pb.SendDtmfResponse()

    async def clear_audio(self, request: pb.ClearAudioRequest) -> pb.ClearAudioResponse:
        await self._control.clear_audio(requests.call_id(request.call_id))
        return pb.ClearAudioResponse()

    async def switch_room(self, request: pb.SwitchRoomRequest) -> pb.SwitchRoomResponse:
        """Moves the caller to another room; returns when the caller is in the new room."""
        call_id, room = requests.call_id(request.call_id), requests.room_name(request.room_name)
        record = await self._control.switch_room(call_id, room, requests.agents(list(request.agents)))
        return pb.SwitchRoomResponse(call=call_message(record))

    async def transfer_call(self, request: pb.TransferCallRequest) -> pb.TransferCallResponse:
        """Transfers the call at the carrier. Returns when the carrier has accepted the transfer, or, with
        `wait_until_answered`, when the outcome is known."""
        wish = TransferWish(request.to, request.timeout, request.caller_id, request.failure_sentence)
        call_id = requests.call_id(request.call_id)
        record = await self._control.transfer(call_id, wish, wait=request.wait_until_answered)
        return pb.TransferCallResponse(call=call_message(record))

    def _stream_url(self, call: CallSession) -> str:
        token = self._signer.mint(call.call_id, call.deadline)
        carrier = self._carriers[call.request.provider]
        return carrier.stream_url(self._origins.pick(call.request.region), token)
