"""What the log tells of a whole call, and what it never tells, at its most talkative level."""

from __future__ import annotations

import asyncio
import io
import json
import re
from typing import Any

import pytest
from livekit import api

from carrier_simulator.twilio.signing import sign
from connector.app import Connector
from demo.ports import PortLease
from tests.captured_logs import captured_logs, lines_of
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    TWILIO_TOKEN,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    tone,
)
from tests.integration.stranger import FORM, fetch, open_socket, socket_status
from tests.integration.wire import PROTOBUF, Wire, token

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
OF_THE_SERVICE = {"connector ready", "connector stopped"}
NUMBERS = ("5557654321", "5551234567", "5559990000", "5558887777")


CLOSED_LOOP = "error putting to queue: Event loop is closed"
"""What the SDK says of a listener of a test before this one: each test has a loop of its own, a service has one."""


def ours(log: io.StringIO) -> list[dict[str, Any]]:
    """The connector's own lines: the SDK's come from its threads, which know of no call."""
    return [line for line in lines_of(log) if not re.match(rf"[\w:]+:\d+:|{CLOSED_LOOP}", line["event"])]


async def whole_call(stage: Stage, connector: Connector, room: str, direction: Any) -> str:
    """With everything in it: a document, audio both ways, digits both ways, a clear. The connect_url."""
    guest, twilio = await stage.guest(room), await stage.twilio()
    await guest.publish()
    connect_url = await connect_call(
        stage.client(connector),
        room,
        direction,
        participant_identity="sip_15559990000",
        participant_name="+1 555 888 7777",
        participant_attributes={"number": "+15558887777"},
    )
    call = place(twilio, connect_url, to="15551234567")
    await guest.event("track_subscribed")
    call.say(tone(500, 0.5))
    await call.press("5")
    await guest.event("sip_dtmf_received")
    await guest.say(tone(700, 0.3))
    await guest.room.local_participant.publish_dtmf(code=7, digit="7")
    await guest.room.local_participant.perform_rpc(
        destination_identity="sip_15559990000", method="connector.clear", payload=""
    )
    await call.hangup()
    await guest.event("participant_disconnected")
    await ended(connector)
    return connect_url


async def refused_requests(stage: Stage, connector: Connector, room: str) -> list[str]:
    """Every kind of them; the secrets that were in them."""
    http = await stage.http()
    wire = Wire(stage, connector, http)
    client = stage.client(connector)
    connect_url = await connect_call(client, room, OUTBOUND, participant_identity="+15559990000")
    secret_part = connect_url.rpartition("/")[2]
    tokens = [token(stage), token(stage, secret="x" * 40), token(stage, video={})]
    signature = sign(TWILIO_TOKEN, "https://elsewhere.example/")
    for given in tokens[1:]:
        await wire.send(b"", PROTOBUF, headers={"Authorization": f"Bearer {given}"})
        await wire.send(b"", PROTOBUF, headers={"Authorization": given})
        await wire.send(b"", PROTOBUF, path=f"/twirp/{given}")
    await wire.send(b"\xff", PROTOBUF, headers={"Authorization": f"Bearer {tokens[0]}"})
    await wire.send_json({"room_name": room, "destination_country": "+15559990000"})
    await fetch(http, connect_url, FORM, headers={"X-Twilio-Signature": signature})
    await fetch(http, connect_url, FORM, "GET", token="")
    await fetch(http, connect_url[:-1], FORM)
    await fetch(http, connect_url, FORM)
    await fetch(http, connect_url, (("CallSid", "CA" + "9" * 32), ("From", "+15558887777")))
    await socket_status(http, connect_url, headers={"X-Twilio-Signature": signature})
    socket = await open_socket(http, connect_url)
    await socket_status(http, connect_url)
    await socket.send_str('{"event": "start", "start": {"callSid": "+15558887777"}}')
    await socket.receive(5)
    await ended(connector, (await connector.store.list_calls(1))[0].call_id)
    await fetch(http, connect_url, FORM)
    await garbage(connector, secret_part)
    return [secret_part, secret_part[:-1], signature, *tokens]


async def garbage(connector: Connector, secret_part: str) -> None:
    """A request line that HTTP does not allow, with a secret in it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", connector.port)
    writer.write(f"GET /twilio/{secret_part}é HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"400" in await reader.readline()
    writer.close()


@BOTH
async def test_every_line_of_a_call_has_its_id(stage: Stage, room: str, direction: Any) -> None:
    with captured_logs() as log:
        connector = await stage.connector()
        await whole_call(stage, connector, room, direction)
        (record,) = await connector.store.list_calls()
    lines = [line for line in ours(log) if line["event"] not in OF_THE_SERVICE]
    assert {line.get("call_id") for line in lines} == {record.call_id}
    events = [line["event"] for line in lines]
    assert [e for e in events if e.startswith(("call ", "stream", "answer"))] == [
        "call created",
        "answer document fetched",
        "stream opened",
        "call active",
        "call ended",
    ]
    assert lines[-1]["reason"] == "carrier_hangup"


async def test_lines_of_two_calls_are_told_apart(stage: Stage, room: str) -> None:
    with captured_logs() as log:
        connector = await stage.connector()
        twilio = await stage.twilio()
        client = stage.client(connector)
        calls = [
            place(twilio, await connect_call(client, room, OUTBOUND, participant_identity=name)) for name in ("a", "b")
        ]
        for call in calls:
            await call.stream_started.wait()
        sessions = connector.calls.live()
        for call in calls:
            await call.hangup()
        for session in sessions:
            await session.finished.wait()
    for session in sessions:
        events = [line["event"] for line in ours(log) if line.get("call_id") == session.call_id]
        assert (events[0], events[-1]) == ("call created", "call ended")
        assert events.count("call ended") == 1
    assert all(line.get("call_id") for line in ours(log) if line["event"] not in OF_THE_SERVICE)


@BOTH
@pytest.mark.parametrize("form", ["json", "pretty"])
async def test_no_secret_and_no_number_is_in_the_log_of_a_call(
    stage: Stage, room: str, direction: Any, form: str
) -> None:
    with captured_logs("debug", form) as log:
        connector = await stage.connector()
        connect_url = await whole_call(stage, connector, f"{room}-+15559990000", direction)
        text = log.getvalue()
    assert "call ended" in text
    assert_clean(text, stage, [connect_url, connect_url.rpartition("/")[2]])


async def test_no_secret_and_no_number_is_in_the_log_of_refusals(stage: Stage, room: str) -> None:
    with captured_logs() as log:
        connector = await stage.connector()
        secrets = await refused_requests(stage, connector, room)
        text = log.getvalue()
    assert text.count("connect_url refused") == 7
    assert text.count("API request refused") == 8
    assert_clean(text, stage, secrets)


async def test_no_secret_is_in_the_log_when_livekit_fails(stage: Stage, room: str) -> None:
    lease = PortLease()
    with captured_logs() as log:
        for changes in ({"livekit_url": f"ws://127.0.0.1:{lease.port}"}, {"livekit_api_secret": "y" * 40}):
            connector = await stage.connector(**changes)
            client = stage.client(connector, api_secret=connector.settings.livekit_api_secret.get_secret_value())
            with pytest.raises(api.TwirpError):
                await connect_call(client, room, OUTBOUND)
        text = log.getvalue()
    lease.close()
    assert "call ended" in text
    assert_clean(text, stage, ["y" * 40])


def assert_clean(text: str, stage: Stage, secrets: list[str]) -> None:
    for secret in [*secrets, stage.livekit.api_secret, stage.livekit.api_key, TWILIO_TOKEN]:
        assert secret not in text, line_with(secret, text)
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.", text)
    for number in NUMBERS:
        assert number not in text, line_with(number, text)
    assert not re.search("888[ -]?7777", text)


def line_with(what: str, text: str) -> str:
    return next(line for line in text.splitlines() if what in line)[:500]


async def test_garbage_on_the_port_is_one_calm_line(stage: Stage) -> None:
    with captured_logs() as log:
        await garbage(await stage.connector(), "x")
    (line,) = [line for line in ours(log) if line["event"] not in OF_THE_SERVICE]
    assert (line["level"], line["event"]) == ("info", "Error handling request from 127.0.0.1: InvalidURLError")
    assert "exception" not in line


async def test_a_refusal_of_a_known_call_names_it(stage: Stage, room: str) -> None:
    with captured_logs() as log:
        connector = await stage.connector()
        http = await stage.http()
        connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
        call = only_session(connector)
        await fetch(http, connect_url, FORM, token="")
        await fetch(http, connect_url[:-1], FORM)
        await fetch(http, connect_url, FORM)
        await fetch(http, connect_url, (("CallSid", "CA" + "9" * 32),))
    refusals = [line for line in ours(log) if line["event"] == "connect_url refused"]
    assert [(line["status"], line.get("call_id")) for line in refusals] == [
        (403, call.call_id),
        (404, None),
        (410, call.call_id),
    ]


async def test_the_pretty_log_of_a_call_is_for_people(stage: Stage, room: str) -> None:
    with captured_logs("info", "pretty") as log:
        connector = await stage.connector()
        await whole_call(stage, connector, room, OUTBOUND)
        lines = [line for line in log.getvalue().splitlines() if CLOSED_LOOP not in line]
    assert len(lines) == 6
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d\.\d{6} \[info *\] \S", line), line
        with pytest.raises(json.JSONDecodeError):
            json.loads(line)
    assert re.search(r"call ended +call_id=call_\w+ .*reason=carrier_hangup", lines[-1])
