"""`connector sip` as an operator runs it, against a real livekit-server with a Redis; its TwiML dials for real."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from livekit import api
from typer.testing import CliRunner

from carrier_simulator import Document, TwilioSimulator
from connector.cli.doctor_sip import sip_findings
from connector.cli.findings import Finding
from connector.cli.root_commands import app
from connector.config_sources import load_settings
from connector.livekit_api import opened_livekit
from connector.sip.secrets import SipSecrets
from connector.storage.stores import store_at
from demo.connector_process import clean_environment
from demo.livekit_server import LiveKitServer
from tests.integration.sip_livekit import all_rules, all_trunks, lkapi, sip, sip_livekit
from tests.sip_endpoint import SipEndpoint

__all__ = ["lkapi", "sip", "sip_livekit"]

NUMBER = "+15550001111"


class Terminal:
    def __init__(self, livekit: LiveKitServer, folder: Path) -> None:
        self.store = f"sqlite:///{folder}/connector.db"
        self.secret = livekit.api_secret
        self.environment = {
            **clean_environment(),
            **livekit.environment,
            "CONNECTOR_STORE": self.store,
            "CONNECTOR_SIP_ENDPOINT": "sip.example.com",
        }

    async def run(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        """Status, standard output and standard error."""

        def invoke() -> tuple[int, str, str]:
            result = CliRunner(env=self.environment | more).invoke(app, ["sip", *arguments])
            return result.exit_code, result.stdout, result.stderr

        return await asyncio.to_thread(invoke)

    async def password(self) -> str:
        """What the service would dial with."""
        store = store_at(self.store)
        await store.open()
        try:
            return (await SipSecrets(store.sip_numbers, self.secret).of(NUMBER)).password
        finally:
            await store.close()


@pytest.fixture
def terminal(sip_livekit: LiveKitServer, lkapi: api.LiveKitAPI, tmp_path: Path) -> Terminal:
    return Terminal(sip_livekit, tmp_path)


def twiml_of(out: str) -> str:
    found = re.search(r"<\?xml.*?</Response>", out, re.DOTALL)
    assert found is not None, out
    return found[0]


def sip_of(out: str) -> Any:
    return ElementTree.fromstring(twiml_of(out))[0][0]


async def test_a_set_up_prints_what_the_trunk_has_and_the_second_changes_nothing(
    terminal: Terminal, lkapi: api.LiveKitAPI
) -> None:
    status, out, _ = await terminal.run("setup", "--number", NUMBER, "--agent", "helper", "--agent", "scribe")
    assert status == 0
    (trunk,), (rule,) = await all_trunks(lkapi), await all_rules(lkapi)
    noun = sip_of(out)
    assert (noun.attrib["username"], noun.attrib["password"]) == (trunk.auth_username, trunk.auth_password)
    assert noun.text == f"sip:{NUMBER}@sip.example.com"
    assert len(trunk.auth_password) >= 32
    assert [agent.agent_name for agent in rule.room_config.agents] == ["helper", "scribe"]
    assert await terminal.password() == trunk.auth_password
    assert "TwiML Bin" in out
    assert "A call comes in" in out
    assert out.count(trunk.auth_password) == 1

    status, again, _ = await terminal.run("setup", "--number", NUMBER)
    assert status == 0
    assert "nothing changed" in again
    assert twiml_of(again) == twiml_of(out)
    assert (await all_trunks(lkapi), await all_rules(lkapi)) == ([trunk], [rule])


async def test_awkward_credentials_are_escaped(terminal: Terminal, lkapi: api.LiveKitAPI) -> None:
    password = "p&<>'%20#!?"
    status, out, _ = await terminal.run("setup", "--number", NUMBER, "--username", "tw", "--password", password)
    assert status == 0
    assert sip_of(out).attrib == {"username": "tw", "password": password}
    assert (await all_trunks(lkapi))[0].auth_password == password
    status, out, _ = await terminal.run("setup", "--number", NUMBER, CONNECTOR_SIP_PASSWORD="another-password")
    assert "inbound trunk updated: auth_password" in out
    assert await terminal.password() == "another-password"


async def test_a_dry_run_prints_both_files_and_asks_livekit_nothing(terminal: Terminal, lkapi: api.LiveKitAPI) -> None:
    status, out, _ = await terminal.run(
        "setup", "--number", NUMBER, "--agent", "helper", "--dry-run", LIVEKIT_URL="http://127.0.0.1:9"
    )
    assert status == 0
    trunk, rule = (json.loads(text) for text in re.findall(r"^\{.*?^\}", out, re.DOTALL | re.MULTILINE))
    assert trunk["trunk"]["numbers"] == [NUMBER]
    assert trunk["trunk"]["auth_password"] == sip_of(out).attrib["password"]
    assert rule["dispatch_rule"]["rule"] == {"dispatchRuleIndividual": {"roomPrefix": "call-"}}
    assert rule["dispatch_rule"]["room_config"] == {"agents": [{"agent_name": "helper"}]}
    assert "lk sip inbound create inbound-trunk.json" in out
    assert await all_trunks(lkapi) == []


async def test_the_list_has_passwords_only_when_asked(terminal: Terminal, lkapi: api.LiveKitAPI) -> None:
    await terminal.run("setup", "--number", NUMBER, "--password", "a-[bold]-password")
    _, out, _ = await terminal.run("list")
    assert NUMBER in out
    assert "password" not in out
    _, out, _ = await terminal.run("list", "--show-passwords")
    assert "a-[bold]-password" in out


async def test_remove_takes_all_of_it(terminal: Terminal, lkapi: api.LiveKitAPI) -> None:
    await terminal.run("setup", "--number", NUMBER)
    status, out, _ = await terminal.run("remove", "--number", NUMBER)
    assert status == 0
    assert "password deleted" in out
    assert (await all_trunks(lkapi), await all_rules(lkapi)) == ([], [])
    status, out, _ = await terminal.run("remove", "--number", NUMBER)
    assert (status, out) == (0, f"no trunk, rule or password of {NUMBER} to remove\n")
    _, _, error = await terminal.run("list")
    assert "no inbound trunk" in error


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (("--number", "5550001111"), {}, "E.164"),
        (("--number", NUMBER), {"CONNECTOR_SIP_ENDPOINT": ""}, "--endpoint"),
        (("--number", NUMBER, "--endpoint", "a b"), {}, "CONNECTOR_SIP_ENDPOINT"),
        (("--number", NUMBER, "--password", 'a"b'), {}, "--password"),
        (("--number", NUMBER, "--username", "a:b"), {}, "--username"),
    ],
)
async def test_what_cannot_be_set_up(
    terminal: Terminal, lkapi: api.LiveKitAPI, arguments: tuple[str, ...], environment: dict[str, str], text: str
) -> None:
    status, _, error = await terminal.run("setup", *arguments, **environment)
    assert status == 2
    assert text in error
    assert await all_trunks(lkapi) == []


async def test_a_livekit_without_redis_is_named(terminal: Terminal) -> None:
    async with LiveKitServer() as without:
        status, _, error = await terminal.run("list", **without.environment)
    assert status == 1
    assert error.startswith("error: livekit-server runs without Redis")
    assert "Traceback" not in error


async def findings(terminal: Terminal, **changes: str) -> list[Finding]:
    names = {"LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "CONNECTOR_STORE", "CONNECTOR_SIP_ENDPOINT"}
    given = {name: value for name, value in terminal.environment.items() if name in names} | changes
    flags = {name.lower().removeprefix("connector_"): value for name, value in given.items()}
    settings = load_settings(None, flags)
    async with opened_livekit(settings) as livekit:
        return await sip_findings(settings, livekit)


async def test_the_doctor_compares_what_is_sent_with_what_is_accepted(
    terminal: Terminal, lkapi: api.LiveKitAPI
) -> None:
    assert await findings(terminal, CONNECTOR_SIP_ENDPOINT="") == []
    (finding,) = await findings(terminal)
    assert (finding.level, "no number is set up" in finding.text) == ("warning", True)

    await terminal.run("setup", "--number", NUMBER)
    assert [finding.level for finding in await findings(terminal)] == ["ok"]

    (trunk,) = await all_trunks(lkapi)
    await lkapi.sip.update_inbound_trunk_fields(trunk.sip_trunk_id, auth_password="changed-by-hand")
    (finding,) = await findings(terminal)
    assert (finding.level, "401" in finding.text) == ("problem", True)
    assert "changed-by-hand" not in repr(finding)
    await terminal.run("setup", "--number", NUMBER)
    assert [finding.level for finding in await findings(terminal)] == ["ok"]

    (rule,) = await all_rules(lkapi)
    await lkapi.sip.delete_dispatch_rule(
        api.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=rule.sip_dispatch_rule_id)
    )
    assert [finding.level for finding in await findings(terminal)] == ["warning"]
    await lkapi.sip.delete_trunk(api.DeleteSIPTrunkRequest(sip_trunk_id=trunk.sip_trunk_id))
    (finding,) = await findings(terminal)
    assert (finding.level, "no inbound trunk" in finding.text) == ("problem", True)

    async with LiveKitServer() as without:
        (finding,) = await findings(terminal, **without.environment)
    assert "without Redis" in finding.text


async def test_the_twiml_bin_dials(terminal: Terminal, lkapi: api.LiveKitAPI) -> None:
    """The printed document, as a TwiML Bin serves it, gets a caller through with the credentials of the trunk."""
    async with SipEndpoint() as endpoint, TwilioSimulator() as twilio:
        _, out, _ = await terminal.run("setup", "--number", NUMBER, "--endpoint", endpoint.host)
        (trunk,) = await all_trunks(lkapi)
        endpoint.manners.numbers[NUMBER] = (trunk.auth_username, trunk.auth_password)
        phone = twilio.dial(NUMBER, "+15552223333", Document(inline=twiml_of(out)))
        await phone.transferred.wait()
        assert endpoint.calls[0].invite.uri == f"sip:{NUMBER}@{endpoint.host}"
        await phone.hangup()
        assert phone.errors == []
