"""A Twilio conference gets LiveKit SIP as a participant: over each transport, from the command, by its callback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from carrier_simulator import Callback, TwilioSimulator
from carrier_simulator.faults import Fault
from carrier_simulator.twilio.conferences import Conference
from connector.app import Connector
from connector.cli.root_commands import app
from connector.sip.secrets import SipCredentials, SipSecrets
from demo.connector_process import clean_environment
from tests.integration.harness import PATIENCE, TWILIO_TOKEN, Stage
from tests.integration.rpc import TRANSPORTS, RpcFailed, grpc_connector, rpc_over
from tests.sip_endpoint import SipEndpoint

NUMBER, OTHER, FROM = "+15550001111", "+15550002222", "+15552223333"
KNOWN = {NUMBER: ("connector", "a-password-of-the-test"), OTHER: ("connector", "another-password")}
PATTERN = "support-*"
EVENTS = frozenset({"start", "join", "leave", "end"})


@dataclass
class Scene:
    stage: Stage
    connector: Connector
    twilio: TwilioSimulator
    endpoint: SipEndpoint

    @property
    def secrets(self) -> SipSecrets:
        return SipSecrets(self.connector.store.sip_numbers, self.stage.livekit.api_secret)

    async def know(self, number: str, password: str = "") -> None:
        """As `connector sip setup` leaves it."""
        await self.secrets.remember(SipCredentials(number, "ST_1", "connector", password or KNOWN[number][1]))

    async def conference(self, name: str = "support-1", query: str = "", **callback: str) -> Conference:
        """One whose first person has come; its callbacks go to the connector."""
        url = f"{self.connector.settings.public_origin}/v2/conferences/twilio{query}"
        conference = self.twilio.conferences.open(name, Callback(url, events=EVENTS) if callback else None)
        await conference.person()
        return conference


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    async with SipEndpoint(KNOWN) as endpoint:
        twilio = await stage.twilio()
        connector = await grpc_connector(
            stage,
            twilio_account_sid=twilio.account_sid,
            twilio_api_url=twilio.base_url,
            sip_endpoint=endpoint.host,
            sip_conferences=PATTERN,
        )
        scene = Scene(stage, connector, twilio, endpoint)
        await scene.know(NUMBER)
        yield scene


def guests(conference: Conference) -> list[str]:
    return [each.call_sid for each in conference.participants if each.label == "livekit"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_livekit_comes_in_once_and_goes(scene: Scene, transport: str) -> None:
    conference = await scene.conference()
    async with rpc_over(transport, scene.stage, scene.connector) as rpc:
        first = await rpc.bridge(conference_sid=conference.sid, **{"from": FROM})
        participant = conference.named("livekit")
        assert participant is not None
        assert (first.call_sid, first.added) == (participant.call_sid, True)
        await participant.joined.wait()
        (call,) = scene.endpoint.calls
        assert call.invite.uri == f"sip:{NUMBER}@{scene.endpoint.host}"
        assert f"<sip:{FROM}@" in (call.invite.get_header("from") or "")

        again = await rpc.bridge(conference_sid=conference.sid, **{"from": FROM})
        assert (again.call_sid, again.added) == (first.call_sid, False)
        assert len(guests(conference)) == 1

        assert (await rpc.unbridge(conference_sid=conference.sid)).removed
        await asyncio.wait_for(scene.endpoint.hung_up.wait(), PATIENCE)
        assert guests(conference) == []
        assert not (await rpc.unbridge(conference_sid=conference.sid)).removed


async def test_two_who_ask_at_once_get_one_participant(scene: Scene) -> None:
    conference = await scene.conference()
    async with rpc_over("twirp protobuf", scene.stage, scene.connector) as rpc:
        both = await asyncio.gather(*(rpc.bridge(conference_sid=conference.sid) for _ in range(4)))
    assert sorted(answer.added for answer in both) == [False, False, False, True]
    assert len({answer.call_sid for answer in both}) == 1
    assert len(guests(conference)) == 1


async def test_livekit_that_hung_up_can_be_called_in_again(scene: Scene) -> None:
    conference = await scene.conference()
    await conference.person()
    async with rpc_over("grpc", scene.stage, scene.connector) as rpc:
        first = await rpc.bridge(conference_sid=conference.sid)
        participant = conference.named("livekit")
        assert participant is not None
        await participant.joined.wait()
        scene.endpoint.hang_up()
        await participant.left.wait()
        second = await rpc.bridge(conference_sid=conference.sid)
        assert second.added
        assert second.call_sid != first.call_sid


async def test_a_number_among_several_has_to_be_named(scene: Scene) -> None:
    await scene.know(OTHER)
    conference = await scene.conference()
    async with rpc_over("twirp json", scene.stage, scene.connector) as rpc:
        with pytest.raises(RpcFailed, match="2 numbers"):
            await rpc.bridge(conference_sid=conference.sid)
        await rpc.bridge(conference_sid=conference.sid, number=OTHER)
        participant = conference.named("livekit")
        assert participant is not None
        await participant.joined.wait()
    assert scene.endpoint.calls[0].invite.uri.startswith(f"sip:{OTHER}@")


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"conference_sid": "support-1"}, "invalid_argument", "conference_sid"),
        ({"conference_sid": "CF" + "0" * 32}, "not_found", "no conference"),
        ({"conference_sid": "CF" + "0" * 32, "from": "a b"}, "invalid_argument", "from"),
        ({"conference_sid": "CF" + "0" * 32, "number": "+15559999999"}, "failed_precondition", "connector sip setup"),
    ],
)
async def test_what_cannot_be_bridged(scene: Scene, fields: dict[str, str], code: str, text: str) -> None:
    async with rpc_over("twirp json", scene.stage, scene.connector) as rpc:
        with pytest.raises(RpcFailed) as caught:
            await rpc.bridge(**fields)
    assert caught.value.code == code
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("changes", "missing"), [({"sip_endpoint": ""}, "CONNECTOR_SIP_ENDPOINT"), ({"twilio_account_sid": ""}, "TWILIO")]
)
async def test_what_has_to_be_configured(stage: Stage, changes: dict[str, str], missing: str) -> None:
    given = {"twilio_account_sid": "AC" + "0" * 32, "sip_endpoint": "sip.example.com"} | changes
    connector = await stage.connector(**given)
    async with rpc_over("twirp json", stage, connector) as rpc:
        with pytest.raises(RpcFailed, match=missing) as caught:
            await rpc.bridge(conference_sid="CF" + "0" * 32)
    assert caught.value.code == "failed_precondition"


# Its callback -----------------------------------------------------------------------------------------------


async def test_a_conference_whose_name_matches_is_bridged_by_itself(scene: Scene) -> None:
    conference = await scene.conference(told="yes")
    participant = conference.named("livekit")
    assert participant is not None
    await participant.joined.wait()
    await conference.person()
    assert len(guests(conference)) == 1
    assert conference.errors == []


async def test_another_name_is_left_alone(scene: Scene) -> None:
    conference = await scene.conference("sales-1", told="yes")
    await conference.person()
    assert guests(conference) == []
    assert conference.errors == []


async def test_the_callbacks_url_may_say_which_number(scene: Scene) -> None:
    await scene.know(OTHER)
    query = f"?number=%2B{OTHER[1:]}&from=%2B{FROM[1:]}"
    conference = await scene.conference(query=query, told="yes")
    participant = conference.named("livekit")
    assert participant is not None
    await participant.joined.wait()
    invite = scene.endpoint.calls[0].invite
    assert invite.uri.startswith(f"sip:{OTHER}@")
    assert f"<sip:{FROM}@" in (invite.get_header("from") or "")


async def test_once_taken_out_it_stays_out(scene: Scene) -> None:
    conference = await scene.conference(told="yes")
    participant = conference.named("livekit")
    assert participant is not None
    # A conference-start that is still on its way would call it in once more.
    await conference.begun.wait()
    async with rpc_over("grpc", scene.stage, scene.connector) as rpc:
        await rpc.unbridge(conference_sid=conference.sid)
    await conference.person()
    assert guests(conference) == []


@pytest.mark.parametrize("token", [None, "somebody-elses-token"])
async def test_an_unsigned_callback_does_nothing(scene: Scene, token: str | None) -> None:
    scene.twilio.web.signing_token = token
    conference = await scene.conference(told="yes")
    assert guests(conference) == []
    assert [error.code for error in conference.errors] == [Fault.HTTP_RETRIEVAL]
    assert "403" in conference.errors[0].message


async def test_without_an_auth_token_no_callback_is_believed(stage: Stage) -> None:
    connector = await stage.connector(twilio_auth_token="", sip_endpoint="sip.example.com", sip_conferences="*")
    http = await stage.http()
    async with http.post(
        f"{connector.settings.public_origin}/v2/conferences/twilio", data={"FriendlyName": "x"}
    ) as reply:
        assert reply.status == 403
        assert "TWILIO_AUTH_TOKEN" in await reply.text()


# The command ------------------------------------------------------------------------------------------------


async def test_the_command_bridges_without_the_service(scene: Scene) -> None:
    settings = scene.connector.settings
    environment = {
        **clean_environment(),
        **scene.stage.livekit.environment,
        "CONNECTOR_STORE": settings.store,
        "CONNECTOR_SIP_ENDPOINT": settings.sip_endpoint,
        "TWILIO_ACCOUNT_SID": scene.twilio.account_sid,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "TWILIO_API_URL": scene.twilio.base_url,
    }
    conference = await scene.conference()

    async def run(*arguments: str) -> tuple[int, str]:
        def invoke() -> tuple[int, str]:
            result = CliRunner(env=environment).invoke(app, ["sip", "bridge-conference", *arguments])
            # The connector of this test lives in this process too, and may log meanwhile.
            return result.exit_code, result.output.splitlines()[-1]

        return await asyncio.to_thread(invoke)

    assert await run(conference.sid, "--from", FROM) == (
        0,
        f"{conference.sid}: LiveKit is called in ({guests(conference)[0]})",
    )
    assert await run(conference.sid) == (0, f"{conference.sid}: LiveKit is in it already ({guests(conference)[0]})")
    assert await run(conference.sid, "--remove") == (0, f"{conference.sid}: LiveKit is out")
    assert await run(conference.sid, "--remove") == (0, f"{conference.sid}: LiveKit was not in it")
    status, said = await run("CF" + "0" * 32)
    assert status == 1
    assert "no conference" in said
