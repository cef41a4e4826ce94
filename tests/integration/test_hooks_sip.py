"""A connector in mode `sip`: Twilio's webhook, a real INVITE with the trunk's credentials, and what is told of it.

livekit-server and its Redis are real, so trunks and dispatch rules are; a SIP endpoint on another stack stands for
livekit-sip and lets in who knows the trunk's password.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from livekit import api

from carrier_simulator import CallStatus, InboundCall, TwilioSimulator
from connector.api.carrier.sentences import SORRY, WRONG_PIN
from connector.app import Connector
from connector.call.dependencies import BUSY
from connector.call.registry.dialled import OWNER
from connector.model.call import CallRecord, CallRequest, CallState, ParticipantSpec
from connector.model.end_reason import EndReason
from connector.sip import plan
from connector.sip.secrets import SipCredentials, SipSecrets
from demo.livekit_server import LiveKitServer
from tests.integration.harness import PATIENCE, Stage, stage_on, until
from tests.integration.rest import RestClient
from tests.integration.sip_livekit import all_rules, lkapi, sip, sip_livekit
from tests.integration.webhooks import Receiver, Rest
from tests.sip_endpoint import SipEndpoint

__all__ = ["lkapi", "sip", "sip_livekit"]

CALLER, CALLED = "+15552223333", "+15550001111"


@dataclass
class Scene:
    stage: Stage
    connector: Connector
    twilio: TwilioSimulator
    endpoint: SipEndpoint
    rest: RestClient
    lkapi: api.LiveKitAPI
    password: str

    async def webhook(self, **fields: Any) -> str:
        url: str = (await self.rest.connector(mode="sip", **fields))["webhookUrl"]
        return url

    def call(self, webhook: str, from_: str = CALLER) -> InboundCall:
        return self.twilio.inbound_call(webhook, to=CALLED, from_=from_)

    async def talking(self, phone: InboundCall) -> CallRecord:
        """The call's record once LiveKit SIP has picked up."""
        await phone.transferred.wait()
        async with asyncio.timeout(PATIENCE):
            while (record := await self.record()).state is not CallState.ACTIVE:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        return record

    async def record(self) -> CallRecord:
        (record,) = await self.connector.store.list_calls()
        return record

    async def over(self, phone: InboundCall) -> CallRecord:
        await phone.finished()
        assert phone.errors == []
        record = await self.record()
        assert record.state is CallState.ENDED
        return record

    async def rules_of_calls(self) -> list[api.SIPDispatchRuleInfo]:
        return [rule for rule in await all_rules(self.lkapi) if rule.rule.HasField("dispatch_rule_direct")]


@pytest.fixture
async def scene(sip_livekit: LiveKitServer, lkapi: api.LiveKitAPI, sip: Any, tmp_path: Path) -> AsyncIterator[Scene]:
    done = await sip.set_up(plan.Wanted(CALLED))
    known = {CALLED: (done.setup.username, done.setup.password)}
    async with SipEndpoint(known) as endpoint, stage_on(sip_livekit, tmp_path) as stage:
        twilio = await stage.twilio()
        connector = await stage.connector(
            sip_endpoint=endpoint.host,
            twilio_account_sid=twilio.account_sid,
            twilio_api_url=twilio.base_url,
            webhook_allow_private=True,
        )
        secrets = SipSecrets(connector.store.sip_numbers, sip_livekit.api_secret)
        await secrets.remember(SipCredentials(CALLED, done.setup.trunk_id, *known[CALLED]))
        rest = RestClient(await stage.http(), connector)
        yield Scene(stage, connector, twilio, endpoint, rest, lkapi, done.setup.password)


async def test_a_caller_reaches_livekit_sip_and_the_record_tells_it(scene: Scene, log: list[Any]) -> None:
    """Without a rule of ours: the dispatch rule of the set-up decides."""
    phone = scene.call(await scene.webhook())
    record = await scene.talking(phone)
    assert (record.owner, record.from_number, record.to_number) == (OWNER, CALLER, CALLED)
    assert (record.carrier_call_id, record.room, record.identity) == (phone.sid, "", f"sip_{CALLER}")
    (answered,) = scene.endpoint.calls
    assert answered.invite.uri == f"sip:{CALLED}@{scene.endpoint.host}"
    assert f"<sip:{CALLER}@" in (answered.invite.get_header("from") or "")
    assert await scene.rules_of_calls() == []
    await phone.hangup()
    await asyncio.wait_for(scene.endpoint.hung_up.wait(), PATIENCE)
    record = await scene.over(phone)
    assert (record.end_reason, record.carrier_status) == (EndReason.CARRIER_HANGUP, "completed")
    assert record.started_at
    assert [event for event, _ in record.timelog] == ["call-started", "call-answered", "call-hangup"]
    shown = (await scene.rest.ok("GET", f"/v2/sip/call/{record.call_id}"))["data"]
    assert (shown["status"], shown["endReason"]) == ("ended", "carrier_hangup")
    assert scene.password not in str(log)
    assert CALLER not in str(log)


async def test_a_customers_server_is_told(scene: Scene, room: str) -> None:
    async with Receiver() as receiver:
        customer = Rest(await scene.stage.http(), scene.connector.settings)
        await customer.register(receiver.url)
        phone = scene.call(await scene.webhook(defaultRoomId=room))
        record = await scene.talking(phone)
        await phone.hangup()
        await scene.over(phone)
        scene.endpoint.manners.status = 486
        busy = scene.call(await scene.webhook(defaultRoomId=room))
        await busy.finished()
        received = await receiver.count(5)
    key = await customer.public_key()
    for each in received:
        each.verify(key)
    assert receiver.types(record.call_id) == ["call-started", "call-answered", "call-hangup"]
    ended = next(each for each in received if each.type == "call-hangup")
    assert (ended.data["roomId"], ended.data["from"], ended.data["endReason"]) == (room, CALLER, "carrier_hangup")
    missed = next(each for each in received if each.type == "call-missed")
    assert missed.data["endReason"] == "busy"


async def test_livekit_hangs_up(scene: Scene) -> None:
    phone = scene.call(await scene.webhook())
    await scene.talking(phone)
    scene.endpoint.hang_up()
    assert (await scene.over(phone)).end_reason is EndReason.CARRIER_HANGUP
    assert phone.status is CallStatus.COMPLETED


@pytest.mark.parametrize(
    ("status", "reason", "said", "hears"),
    [
        (486, EndReason.BUSY, "busy", BUSY),
        (480, EndReason.NO_ANSWER, "no-answer", SORRY),
        (503, EndReason.CARRIER_FAILED, "failed", SORRY),
    ],
)
async def test_what_dials_action_reports(scene: Scene, status: int, reason: EndReason, said: str, hears: str) -> None:
    scene.endpoint.manners.status = status
    phone = scene.call(await scene.webhook())
    record = await scene.over(phone)
    assert (record.end_reason, record.carrier_status) == (reason, said)
    assert record.end_detail == f"LiveKit SIP answered {status}"
    assert record.started_at == 0.0
    assert [event for event, _ in record.timelog] == ["call-started", "call-missed"]
    assert phone.spoken == [hears]


async def test_a_password_that_the_trunk_does_not_have_is_refused(scene: Scene) -> None:
    secrets = SipSecrets(scene.connector.store.sip_numbers, scene.stage.livekit.api_secret)
    await secrets.remember(SipCredentials(CALLED, "ST_x", "connector", "an-old-password"))
    phone = scene.call(await scene.webhook())
    record = await scene.over(phone)
    assert (record.end_reason, record.end_detail) == (EndReason.CARRIER_FAILED, "LiveKit SIP answered 401")
    assert scene.endpoint.calls == []


async def test_a_caller_who_gives_up_while_it_rings_is_missed(scene: Scene) -> None:
    scene.endpoint.manners.rings_for = float("inf")
    phone = scene.call(await scene.webhook())
    await asyncio.wait_for(scene.endpoint.ringing.wait(), PATIENCE)
    await phone.hangup()
    record = await scene.over(phone)
    assert (record.end_reason, record.timelog[-1][0]) == (EndReason.CANCELED, "call-missed")


# Routing ----------------------------------------------------------------------------------------------------


async def test_a_rule_sends_the_caller_and_an_agent_to_its_room(scene: Scene, room: str) -> None:
    rule = await scene.rest.rule(
        phoneNumbers=[CALLED], room={"type": "static", "id": room}, agentId="helper", agentMetadata={"a": 1}
    )
    phone = scene.call(await scene.webhook(defaultRoomId="elsewhere"))
    record = await scene.talking(phone)
    assert (record.room, record.rule_id, record.identity) == (room, rule["id"], f"sip_{CALLER}")
    (of_call,) = await scene.rules_of_calls()
    assert of_call.rule.dispatch_rule_direct.room_name == room
    assert (list(of_call.inbound_numbers), list(of_call.numbers)) == ([CALLER], [CALLED])
    assert of_call.attributes["connector.callId"] == record.call_id
    dispatches: list[Any] = await scene.stage.admin.agent_dispatch.list_dispatch(room)
    assert [(each.agent_name, each.metadata) for each in dispatches if each.agent_name] == [("helper", '{"a":1}')]
    await phone.hangup()
    await scene.over(phone)
    assert await scene.rules_of_calls() == []
    assert room in await scene.stage.rooms()


async def test_a_room_that_was_made_for_nobody_goes_again(scene: Scene, room: str) -> None:
    scene.endpoint.manners.status = 503
    phone = scene.call(await scene.webhook(defaultRoomId=room))
    await scene.over(phone)
    assert room not in await scene.stage.rooms()
    assert await scene.rules_of_calls() == []


async def test_a_hidden_number_is_nowhere(scene: Scene, room: str, log: list[Any]) -> None:
    await scene.rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": room}, hidePhoneNumber=True)
    phone = scene.call(await scene.webhook())
    record = await scene.talking(phone)
    (answered,) = scene.endpoint.calls
    assert f"<sip:{record.call_id}@" in (answered.invite.get_header("from") or "")
    digits = CALLER[1:]
    assert digits not in str([bytes(invite) for invite in scene.endpoint.invites])
    assert digits not in str(await scene.rules_of_calls())
    assert digits not in str(record)
    assert record.identity == f"sip_{record.call_id}"
    await phone.hangup()
    await scene.over(phone)
    assert digits not in str(log)


async def test_one_who_calls_twice_at_once_gets_two_rooms(scene: Scene) -> None:
    rule = await scene.rest.rule(room={"type": "dynamic", "prefix": "random"})
    webhook = await scene.webhook(defaultRuleId=rule["id"])
    first, second = scene.call(webhook), scene.call(webhook)
    await first.transferred.wait()
    await second.transferred.wait()
    rules = await scene.rules_of_calls()
    assert len({each.rule.dispatch_rule_direct.room_name for each in rules}) == 2
    callers = sorted(each.inbound_numbers[0][:5] for each in rules)
    assert callers == [CALLER[:5], "call_"]
    invited = sorted((call.invite.get_header("from") or "")[:10] for call in scene.endpoint.calls)
    assert invited == [f"<sip:{CALLER}"[:10], "<sip:call_"]
    identities = sorted(record.identity[:9] for record in await scene.connector.store.list_calls())
    assert identities == [f"sip_{CALLER}"[:9], "sip_call_"]
    await asyncio.gather(first.hangup(), second.hangup())
    await asyncio.gather(first.finished(), second.finished())
    assert await scene.rules_of_calls() == []


async def test_a_rule_without_digits_is_not_kept_to_and_says_so(scene: Scene, room: str, log: list[Any]) -> None:
    await scene.rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": room}, dtmf=False)
    phone = scene.call(await scene.webhook())
    await scene.talking(phone)
    assert len([line for line in log if "turns digits off" in line["event"]]) == 1
    await phone.hangup()


async def test_a_pin_comes_before_the_dial(scene: Scene, room: str) -> None:
    await scene.rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": room, "pin": "4711"})
    phone = scene.call(await scene.webhook())
    await phone.enter("1111")
    await until(lambda: WRONG_PIN in phone.spoken)
    assert scene.endpoint.invites == []
    await phone.enter("4711")
    await scene.talking(phone)
    assert len(scene.endpoint.calls) == 1


async def test_who_is_not_admitted_is_refused_though_the_set_up_has_a_rule(scene: Scene, room: str) -> None:
    await scene.rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": room}, allowedNumbers=["+15559999999"])
    phone = scene.call(await scene.webhook())
    await phone.finished()
    assert phone.spoken == [SORRY]
    assert scene.endpoint.invites == []
    assert await scene.connector.store.list_calls() == []


# From our side ----------------------------------------------------------------------------------------------


async def test_the_api_ends_a_call(scene: Scene, room: str) -> None:
    phone = scene.call(await scene.webhook(defaultRoomId=room))
    record = await scene.talking(phone)
    ended = (await scene.rest.ok("POST", "/v2/sip/call/end", {"callId": record.call_id}))["data"]
    assert (ended["status"], ended["endReason"]) == ("ended", "ended_by_api")
    await asyncio.wait_for(scene.endpoint.hung_up.wait(), PATIENCE)
    assert (await scene.over(phone)).end_reason is EndReason.ENDED_BY_API
    assert await scene.rules_of_calls() == []


async def test_the_api_transfers_a_call(scene: Scene) -> None:
    phone = scene.call(await scene.webhook())
    record = await scene.talking(phone)
    body = {"callId": record.call_id, "transferTo": "+15556667777"}
    # The phone does not come back from there, so nobody can be told of it.
    for field, value in (("failureSentence", "Sorry."), ("waitUntilAnswered", True)):
        status, answer = await scene.rest("POST", "/v2/sip/call/transfer", body | {field: value})
        assert (status, "LiveKit SIP" in answer["message"]) == (400, True)
    await scene.rest.ok("POST", "/v2/sip/call/transfer", body)
    await asyncio.wait_for(scene.endpoint.hung_up.wait(), PATIENCE)
    await until(lambda: len(phone.dialled) == 2)
    assert phone.dialled[1].address == "+15556667777"
    record = await scene.record()
    assert record.end_reason is EndReason.TRANSFERRED
    assert [event for event, _ in record.timelog][-2:] == ["call-transferred", "call-hangup"]
    await phone.hangup()


async def test_without_twilios_credentials_it_says_what_is_missing(scene: Scene) -> None:
    phone = scene.call(await scene.webhook())
    record = await scene.talking(phone)
    other = await scene.stage.connector(twilio_account_sid="", store=scene.connector.settings.store)
    rest = RestClient(await scene.stage.http(), other)
    status, answer = await rest("POST", "/v2/sip/call/end", {"callId": record.call_id})
    assert status == 409
    assert "TWILIO_ACCOUNT_SID" in answer["message"]
    assert (await scene.record()).state is CallState.ACTIVE
    await phone.hangup()


async def test_what_no_report_has_ended_is_tidied_up(scene: Scene) -> None:
    phone = scene.call(await scene.webhook(defaultRoomId="lost"))
    record = await scene.talking(phone)
    (rule,) = await scene.rules_of_calls()
    await scene.connector._sweep_sip()
    assert await scene.rules_of_calls() == [rule]
    old = replace(record, created_at=record.created_at - scene.connector.settings.max_duration - 3601)
    await scene.connector.store.save_call(old)
    await scene.connector._sweep_sip()
    assert (await scene.record()).end_reason is EndReason.INTERRUPTED
    assert await scene.rules_of_calls() == []
    await phone.hangup()


# What is refused --------------------------------------------------------------------------------------------


async def test_a_number_that_was_not_set_up_is_refused_politely(scene: Scene, log: list[Any]) -> None:
    phone = scene.twilio.inbound_call(await scene.webhook(), to="+15558888888", from_=CALLER)
    await phone.finished()
    assert phone.spoken == [SORRY]
    (refused,) = [line for line in log if line["event"] == "incoming call refused"]
    assert "connector sip setup" in refused["reason"]


async def test_without_an_endpoint_the_log_says_what_to_set(scene: Scene, log: list[Any]) -> None:
    connector = await scene.stage.connector(sip_endpoint="", store=scene.connector.settings.store)
    rest = RestClient(await scene.stage.http(), connector)
    phone = scene.call((await rest.connector(mode="sip"))["webhookUrl"])
    await phone.finished()
    assert phone.spoken == [SORRY]
    (refused,) = [line for line in log if line["event"] == "incoming call refused"]
    assert "CONNECTOR_SIP_ENDPOINT" in refused["reason"]


async def test_an_unsigned_webhook_and_report_are_refused(scene: Scene) -> None:
    webhook = await scene.webhook()
    http = await scene.stage.http()
    form = {"CallSid": "CA" + "0" * 32, "From": CALLER, "To": CALLED}
    async with http.post(webhook, data=form) as reply:
        assert reply.status == 403
    phone = scene.call(webhook)
    await scene.talking(phone)
    (target,) = phone.dialled
    for url in (target.callback, target.callback.replace("/answered", "/ended")):
        async with http.post(url, data=form | {"DialCallStatus": "busy"}) as reply:
            assert reply.status == 403
    assert (await scene.record()).state is CallState.ACTIVE


async def test_a_report_with_another_token_is_refused(scene: Scene) -> None:
    phone = scene.call(await scene.webhook())
    await scene.talking(phone)
    (target,) = phone.dialled
    url = target.callback.replace("/answered", "x/ended")
    page = [("DialCallStatus", "busy"), *phone.form()]
    status, _ = await scene.twilio.web._request(url, "POST", page)
    assert status == 404
    assert (await scene.record()).state is CallState.ACTIVE


async def test_reports_that_come_twice_or_late_change_nothing(scene: Scene) -> None:
    phone = scene.call(await scene.webhook())
    await scene.talking(phone)
    (target,) = phone.dialled
    await phone.hangup()
    before = await scene.over(phone)
    await scene.twilio.web.notify(target.callback, "POST", phone.form())
    ended = target.callback.replace("/answered", "/ended")
    await scene.twilio.web.fetch(ended, "POST", [*phone.form(), ("DialCallStatus", "busy")])
    assert await scene.record() == before


async def test_an_answer_that_was_not_reported_is_made_up_for(scene: Scene) -> None:
    phone = scene.call(await scene.webhook())
    await scene.talking(phone)
    calls = scene.connector._dialled
    record = await scene.record()
    await calls.announce(_request_like(record, "call_" + "0" * 24))
    await calls.ended("call_" + "0" * 24, "completed", 7.0, "")
    (made,) = [each for each in await scene.connector.store.list_calls() if each.call_id == "call_" + "0" * 24]
    assert made.ended_at - made.started_at == pytest.approx(7.0, abs=0.5)
    assert [event for event, _ in made.timelog] == ["call-started", "call-answered", "call-hangup"]


def _request_like(record: CallRecord, call_id: str) -> CallRequest:
    return CallRequest(call_id, record.provider, record.direction, "", ParticipantSpec("sip_x"))


async def test_a_connector_of_another_carrier_cannot_be_in_this_mode(scene: Scene) -> None:
    status, answer = await scene.rest("POST", "/v2/connectors", {"provider": "plivo", "mode": "sip"})
    assert status == 400
    assert "mode" in answer["message"]


async def test_another_process_takes_the_reports(scene: Scene) -> None:
    """The carrier's requests may reach any process behind the public URL that shares the store."""
    phone = scene.call(await scene.webhook(defaultRoomId="shared"))
    await scene.talking(phone)
    settings = scene.connector.settings
    other = await scene.stage.connector(
        sip_endpoint=scene.endpoint.host, store=settings.store, public_url=settings.public_origin
    )
    scene.twilio.web.routes[settings.public_origin] = f"http://127.0.0.1:{other.port}"
    await scene.connector.stop(0.0)
    await phone.hangup()
    await phone.finished()
    assert phone.errors == []
    (record,) = await other.store.list_calls()
    assert record.end_reason is EndReason.CARRIER_HANGUP
    assert await scene.rules_of_calls() == []
