"""Calls of several Twilio accounts at one connector, one of them while its token is rotated."""

from __future__ import annotations

from structlog.testing import capture_logs

from carrier_simulator import TwilioSimulator
from tests.integration.harness import Stage, ended, only_session, until
from tests.integration.rest import RestClient


async def test_a_call_of_another_account_is_let_in_and_ended_with_that_account_s_token(stage: Stage, room: str) -> None:
    sub, stranger = TwilioSimulator(), TwilioSimulator()
    await stage.enter(sub)
    await stage.enter(stranger)
    connector = await stage.connector(
        twilio_account_sid="AC" + "0" * 32,
        twilio_accounts={sub.account_sid: ["a-token-that-is-not-in-use-yet", sub.auth_token]},
        twilio_api_url=sub.base_url,
    )
    rest = RestClient(await stage.http(), connector)
    made = await rest.connector(defaultRoomId=room)

    phone = sub.call_in(made["webhookUrl"])
    await phone.stream_started.wait()
    await until(lambda: only_session(connector).state == "active")
    call = only_session(connector)
    assert call.record.account_id == sub.account_sid
    # Twilio refuses the new token, and takes the old one.
    await rest.ok("POST", "/v2/sip/call/end", {"callId": call.call_id})
    await phone.ended.wait()
    assert phone.errors == []
    assert (await ended(connector, call.call_id)).account_id == sub.account_sid

    with capture_logs() as lines:
        refused = stranger.call_in(made["webhookUrl"])
        await refused.ended.wait()
    assert "HTTP 403" in refused.errors[0].message
    assert [line for line in lines if stranger.account_sid in line.get("error", "")]
