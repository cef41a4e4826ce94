"""Commands that administer: the running service is asked; without one they name the store, and none creates it by
reading."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from connector.cli.root_commands import app
from tests.captured_logs import logging_as_before


@pytest.fixture
def port() -> Iterator[int]:
    """Where nobody answers, for as long as the test lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Shell:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.store = folder / "connector.db"
        self._environment = {
            "LIVEKIT_API_KEY": "key-of-the-tests",
            "LIVEKIT_API_SECRET": "secret-of-the-tests-of-thirty-two",
            "CONNECTOR_PORT": str(port),
            "TWILIO_AUTH_TOKEN": "token",
        }

    def __call__(self, *arguments: str, status: int = 0) -> Result:
        nothing_else: dict[str, str | None] = dict.fromkeys(os.environ)
        result = CliRunner().invoke(app, arguments, env=nothing_else | self._environment)
        assert result.exit_code == status, result.output
        return result


@pytest.fixture
def shell(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    with logging_as_before():
        yield Shell(tmp_path, port)


@pytest.mark.parametrize(
    "command",
    [
        "calls",
        "calls list",
        "connectors list",
        "rules list",
        "rules show rule_1",
        "webhooks list",
        "webhooks deliveries",
        "webhooks rotate-key",
    ],
)
def test_reading_creates_no_store_and_says_where_it_looked(shell: Shell, command: str) -> None:
    result = shell(*command.split(), status=1)
    assert f"there is no store {shell.store}" in result.stderr
    assert not shell.store.exists()


def test_without_a_service_the_store_that_is_used_is_named(shell: Shell, port: int) -> None:
    made = shell("connectors", "create", "twilio", "--agent", "helper", "--name", "Main")
    assert f"no connector answers at http://127.0.0.1:{port}: using the store {shell.store}" in made.stderr
    assert "/v2/hooks/twilio/whk_" in made.stdout
    (connector,) = map(json.loads, shell("connectors", "list", "--json").stdout.splitlines())
    (rule,) = map(json.loads, shell("rules", "list", "--json").stdout.splitlines())
    assert connector["rule"] == rule["rule"]
    assert (rule["agent"], rule["room"], rule["name"]) == ("helper", "one for each call", "Calls of Main")


def test_a_room_that_all_callers_share_is_named_as_that(shell: Shell) -> None:
    assert (
        "all callers of this connector share the room lobby"
        in shell("connectors", "create", "twilio", "--room", "lobby").stderr
    )
    assert "share" not in shell("connectors", "create", "twilio", "--agent", "helper").stderr
    assert "only calls that a routing rule matches have a room" in shell("connectors", "create", "twilio").stderr


def test_the_life_of_a_rule(shell: Shell) -> None:
    made = shell("rules", "create", "Sales", "--number", "+15550002222", "--agent", "helper", "--pin", "2468")
    rule_id = made.stdout.strip()
    shell("rules", "update", rule_id, "--room", "control", "--agent-metadata", "vip", "--hide-number")
    shell("rules", "update", rule_id, "--fields", '{"tags": ["new"], "dtmf": false}')
    rule = json.loads(shell("rules", "show", rule_id).stdout)
    assert rule["room"] == {"type": "static", "id": "control", "prefix": None, "pin": "2468"}
    assert (rule["agentId"], rule["agentMetadata"], rule["tags"], rule["dtmf"]) == ("helper", "vip", ["new"], False)
    assert rule["hidePhoneNumber"]
    shell("rules", "update", rule_id, "--fields", '{"dtmf": null, "tags": null}')
    rule = json.loads(shell("rules", "show", rule_id).stdout)
    assert (rule["tags"], rule["dtmf"], rule["agentId"]) == ([], True, "helper")
    shell("rules", "delete", rule_id)
    assert "there are no rules" in shell("rules", "list").stderr
    assert "error: " in shell("rules", "delete", rule_id, status=1).stderr


def test_a_rule_blocks_callers_and_says_what_is_done_without_an_agent(shell: Shell) -> None:
    other = shell("rules", "create", "Voicemail").stdout.strip()
    options = "--block +1900* --block +15550003333 --block-withheld --agent-warn-after 2 --agent-timeout 9.5"
    more = "--room-empty-timeout 0 --fallback-agent second --fallback-number +15550004444 --no-agent-message Later."
    rule_id = shell("rules", "create", "Sales", *options.split(), *more.split(), "--divert", other).stdout.strip()
    rule = json.loads(shell("rules", "show", rule_id).stdout)
    assert (rule["blockedNumbers"], rule["blockWithheld"], rule["divertRuleId"]) == (
        ["+1900*", "+15550003333"],
        True,
        other,
    )
    assert (rule["agentWarnAfter"], rule["agentTimeout"], rule["roomEmptyTimeout"]) == (2, 9.5, 0)
    assert (rule["fallbackAgentId"], rule["fallbackNumber"]) == ("second", "+15550004444")
    assert rule["noAgentMessage"] == "Later."
    shell("rules", "update", rule_id, "--take-withheld", "--no-agent-message", "", "--block", "+44")
    rule = json.loads(shell("rules", "show", rule_id).stdout)
    assert (rule["blockWithheld"], rule["noAgentMessage"], rule["blockedNumbers"]) == (False, "", ["+44"])
    assert rule["agentTimeout"] == 9.5
    rows = map(json.loads, shell("rules", "list", "--json").stdout.splitlines())
    assert [row["blocks"] for row in rows] == ["+44", ""]
    refused = shell("rules", "create", "Bad", "--fallback-number", "555", status=1)
    assert "error: fallbackNumber: " in refused.stderr


def test_calls_and_deliveries_are_read_from_the_store_that_is_named(shell: Shell, port: int) -> None:
    shell("rules", "create", "Makes the store")
    for command, none in (("calls", "there are no calls"), ("webhooks deliveries", "nothing was delivered yet")):
        result = shell(*command.split())
        assert f"no connector answers at http://127.0.0.1:{port}: using the store {shell.store}" in result.stderr
        assert none in result.stderr
    assert "Webhook not found" in shell("webhooks", "deliveries", "wh_none", status=1).stderr


def test_what_the_api_refuses_is_one_line(shell: Shell) -> None:
    shell("rules", "create", "Sales", "--number", "+15550002222")
    refused = shell("rules", "create", "More", "--number", "+1 (555) 000-2222", status=1)
    assert "belongs to another inbound rule already: Sales" in refused.stderr
    assert "must be a JSON object" in shell("rules", "create", "x", "--fields", "[]", status=2).stderr


def test_the_life_of_a_webhook(shell: Shell) -> None:
    made = shell("webhooks", "add", "https://93.184.216.34/hook", "--event", "call-answered").stdout.strip()
    (row,) = map(json.loads, shell("webhooks", "list", "--json").stdout.splitlines())
    assert (row["webhook"], row["events"]) == (made, "call-answered")
    shell("webhooks", "remove", made)
    assert "no webhooks are registered" in shell("webhooks", "list").stderr


def test_an_address_that_was_asked_for_is_not_replaced_by_a_store(shell: Shell, port: int) -> None:
    for command in ("connectors list", "calls list", "calls", "webhooks deliveries"):
        refused = shell(*command.split(), "--url", f"http://127.0.0.1:{port}", status=1)
        assert f"no connector answers at http://127.0.0.1:{port}" in refused.stderr
        assert not shell.store.exists()
