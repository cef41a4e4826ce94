"""`connector call` and `connector calls` against a real `connector serve`, read as an operator reads them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from carrier_simulator import Answer, CallStatus, Outcome, TwilioSimulator
from connector.cli.root_commands import app
from demo.connector_process import ConnectorProcess, clean_environment
from demo.livekit_server import LiveKitServer
from tests.integration.harness import PATIENCE, TWILIO_TOKEN, Stage, until
from tests.integration.test_call_control import keys_heard

TO, FROM = "+15551234567", "+15557654321"
PLACE = ("call", "--to", TO, "--from", FROM)
NOT_E164 = "to: is not a number in E.164 form such as +15551234567 (invalid_argument)"
RINGS_ON = Outcome(after=60)


@dataclass
class Ran:
    status: int
    out: str
    err: str

    @property
    def call_id(self) -> str:
        found = re.search(r"call_[0-9a-f]{24}", self.out)
        assert found is not None, self
        return found[0]


class Terminal:
    """Runs `connector` with an environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**clean_environment(), **environment}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connector", *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> Ran:
        """In a thread of this process, which saves a second of imports each time."""

        def invoke() -> Ran:
            result = CliRunner(env=self.environment).invoke(app, arguments)
            return Ran(result.exit_code, result.stdout, result.stderr)

        return await asyncio.to_thread(invoke)


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


@pytest.fixture
async def service(livekit: LiveKitServer, twilio: TwilioSimulator) -> AsyncIterator[ConnectorProcess]:
    environment = {
        "LIVEKIT_URL": livekit.url,
        "LIVEKIT_API_KEY": livekit.api_key,
        "LIVEKIT_API_SECRET": livekit.api_secret,
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "TWILIO_API_URL": twilio.base_url,
    }
    async with ConnectorProcess(environment) as service:
        yield service


@pytest.fixture
def terminal(service: ConnectorProcess) -> Terminal:
    return Terminal(dict(service.environment))


async def test_an_answered_call_from_the_dial_to_the_end(
    stage: Stage, room: str, twilio: TwilioSimulator, terminal: Terminal
) -> None:
    guest = await stage.guest(room)
    placed = await terminal.run(*PLACE, "--room", room, "--identity", "caller", "--agent", "a", "--agent", "b")
    call_id = placed.call_id
    assert (placed.status, placed.err) == (0, "")
    lines = placed.out.splitlines()
    assert lines[-1] == f"{call_id} answered; end it with: connector calls end {call_id}"
    assert set(lines[:-1]) <= {f"{call_id} {status}" for status in ("queued", "initiated", "ringing")}
    phone = await twilio.next_call()
    await guest.event("participant_connected", lambda p: p.identity == "caller")
    dispatches = await stage.admin.agent_dispatch.list_dispatch(room)
    assert sorted(dispatch.agent_name for dispatch in dispatches if dispatch.agent_name) == ["a", "b"]

    shown = json.loads((await terminal.run("calls", "get", call_id)).out)
    assert (shown["call_id"], shown["state"], shown["carrier_call_id"]) == (call_id, "STATE_ACTIVE", phone.sid)
    assert (shown["from"], shown["to"], shown["room_name"]) == (FROM, TO, room)

    assert (
        await terminal.run("calls", "dtmf", call_id, "42#")
    ).out == f"{call_id}: 3 digits are queued for the phone\n"
    await until(lambda: keys_heard(phone.heard) == "42#")
    assert (await terminal.run("calls", "clear", call_id)).out == f"{call_id}: cleared\n"
    await until(lambda: phone.stream.received_clears == 1)

    moved = await terminal.run("calls", "switch", call_id, f"{room}-other", "--agent", "c")
    assert (moved.status, moved.out) == (0, f"{call_id} is in {room}-other\n")
    assert "caller" in await stage.participants(f"{room}-other")
    await guest.event("participant_disconnected", lambda p: p.identity == "caller")
    back = await terminal.run("calls", "switch", call_id, room)
    assert back.status == 0
    await until(lambda: len(guest.saw("participant_connected")) > 1)

    finished = await terminal.run("calls", "end", call_id)
    assert (finished.status, finished.out) == (0, f"{call_id} ended: ended_by_api\n")
    await phone.finished()
    assert (phone.status, phone.errors) == (CallStatus.COMPLETED, [])
    await guest.until(lambda: sum(p.identity == "caller" for (p,) in guest.saw("participant_disconnected")) == 2)

    late = await terminal.run("calls", "clear", call_id)
    assert (late.status, late.out) == (1, "")
    assert late.err == "error: the call is ended, not active (failed_precondition)\n"


async def test_a_call_that_nobody_answers_says_why_and_fails(
    stage: Stage, room: str, twilio: TwilioSimulator, terminal: Terminal
) -> None:
    for answer, says in (
        (Answer.BUSY, "busy (the carrier reports busy)"),
        (Answer.NO_ANSWER, "no_answer (the carrier reports no-answer)"),
        (Answer.FAILED, "carrier_failed (the carrier reports failed)"),
    ):
        twilio.outcome = Outcome(answer)
        placed = await terminal.run(*PLACE, "--room", room)
        assert (placed.status, placed.err) == (1, "")
        assert placed.out.splitlines()[-1] == f"{placed.call_id} was not answered: {says}"
        assert room not in await stage.rooms()


async def test_ctrl_c_while_it_rings_stops_the_phone(
    stage: Stage, room: str, twilio: TwilioSimulator, terminal: Terminal
) -> None:
    twilio.outcome = RINGS_ON
    process = await terminal.start(*PLACE, "--room", room)
    assert process.stdout is not None
    phone = await twilio.next_call()
    # It says how far the call has got while it waits.
    while not (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().endswith(" ringing\n"):
        pass
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert out.decode().endswith(" ended\n")
    assert b"Traceback" not in err
    assert process.returncode not in (0, None)
    await phone.finished()
    assert phone.status is CallStatus.CANCELED
    assert room not in await stage.rooms()


async def test_lists_and_their_filters(room: str, twilio: TwilioSimulator, terminal: Terminal) -> None:
    twilio.outcome = Outcome(Answer.BUSY)
    first = await terminal.run(*PLACE, "--room", f"{room}-1")
    twilio.outcome = Outcome()
    second = await terminal.run(*PLACE, "--room", f"{room}-2")

    table = (await terminal.run("calls")).out
    assert [line.split()[0] for line in table.splitlines()] == ["call", second.call_id, first.call_id]
    assert TO not in table
    assert "+1********67" in table

    async def listed(*options: str) -> list[str]:
        ran = await terminal.run("calls", "list", "--json", *options)
        assert ran.status == 0, ran
        return [json.loads(line)["call_id"] for line in ran.out.splitlines()]

    assert await listed("--state", "active") == [second.call_id]
    assert await listed("--room", f"{room}-1") == [first.call_id]
    assert await listed("--limit", "1") == [second.call_id]
    assert await listed("--provider", "plivo") == []
    assert await listed("--since", "2100-01-01") == []
    full = (await terminal.run("calls", "list", "--json", "--full-numbers", "--state", "active")).out
    assert json.loads(full)["to"] == TO


async def test_a_refusal_is_one_line(terminal: Terminal) -> None:
    refusals = {
        ("calls", "get", "call_nobody"): "no such call (not_found)",
        ("calls", "end", "call_nobody"): "no such call (not_found)",
        ("calls", "switch", "call_nobody", "r"): "no such call (not_found)",
        ("calls", "transfer", "call_nobody", TO): "no such call (not_found)",
        ("calls", "dtmf", "call_nobody", "x"): "digits: must be 1 to 32 of 0123456789*#ABCD (invalid_argument)",
        ("call", "--to", "555", "--from", FROM, "--room", "r"): NOT_E164,
    }
    for arguments, error in refusals.items():
        ran = await terminal.run(*arguments)
        assert (ran.status, ran.out, ran.err) == (1, "", f"error: {error}\n")


async def test_no_service_there(stage: Stage, livekit: LiveKitServer) -> None:
    port = stage.free_port()
    environment = {"LIVEKIT_API_KEY": livekit.api_key, "LIVEKIT_API_SECRET": livekit.api_secret}
    process = await Terminal(environment).start("calls", "get", "call_1", "--url", f"http://127.0.0.1:{port}/")
    _, err = await process.communicate()
    assert process.returncode == 1
    nobody = f"no connector answers at http://127.0.0.1:{port} (ClientConnectorError)"
    assert err.decode() == f"error: {nobody}; is `connector serve` running?\n"
