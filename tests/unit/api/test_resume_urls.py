from __future__ import annotations

import time
from dataclasses import replace

import pytest

from connector.api.origins import Origins
from connector.api.resume_urls import ResumeUrls, header_of
from connector.call.record.changes import new_record
from connector.call.registry.dialled import OWNER
from connector.errors import TokenExpired
from connector.model.call import CallRecord, CallRequest, Direction, ParticipantSpec
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.tokens import TokenSigner, stream_named
from connectorpb.v1 import connector_pb2 as pb
from tests.carriers import CARRIERS

SIGNER = TokenSigner("secret")
US = "https://us.example.com"


class Numbers:
    async def stream_of(self, call_id: str) -> int:
        return 3


URLS = ResumeUrls(Numbers(), SIGNER, Origins("https://calls.example.com", {"us": US}, {}), CARRIERS)


def record_of(provider: Provider) -> CallRecord:
    participant = ParticipantSpec("caller")
    request = CallRequest("call_1", provider, Direction.INBOUND, "room", participant, region="us")
    return new_record(request, "owner")


@pytest.mark.parametrize("provider", list(Provider))
async def test_the_url_names_the_current_stream_and_lets_no_stream_in(provider: Provider) -> None:
    record = record_of(provider)
    url = await URLS.of(record)
    start, end = f"{US}/{provider.value}/", "/resume"
    assert url.startswith(start)
    assert url.endswith(end)
    token = url[len(start) : -len(end)]
    assert stream_named(SIGNER.peek(token)[0]) == ("call_1", 3)
    with pytest.raises(TokenExpired):
        SIGNER.verify(token, time.time())
    assert await URLS.of(record) == url


async def test_a_call_that_is_over_or_has_no_stream_has_none() -> None:
    record = record_of(Provider.TWILIO)
    assert await URLS.of(replace(record, end_reason=EndReason.BUSY)) == ""
    assert await URLS.of(replace(record, owner=OWNER)) == ""


def test_the_response_with_a_connect_url_has_the_header() -> None:
    response = pb.ConnectPlivoCallResponse(connect_url="wss://calls.example.com/plivo?ref=T")
    assert header_of(response) == {"Connector-Resume-Url": "https://calls.example.com/plivo/T/resume"}
    assert header_of(pb.SendDtmfResponse()) == {}
    assert header_of(pb.GetCallResponse(call=pb.Call(call_id="c"))) == {}
