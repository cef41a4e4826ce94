"""`connector connectors …` as it is run: on the store alone, and a service that knows at once what was done."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connector.app import Connector
from connector.cli.root_commands import app
from demo.connector_process import clean_environment
from demo.ports import PortLease
from tests.integration.harness import PATIENCE, TWILIO_TOKEN, Stage


class Shell:
    def __init__(self, connector: Connector) -> None:
        settings = connector.settings
        # A command that is asked to wait for the service would wait for this test's own loop, so it is told of none.
        self._nobody = PortLease()
        self._environment = clean_environment() | {
            "LIVEKIT_URL": settings.livekit_url,
            "LIVEKIT_API_KEY": settings.livekit_api_key,
            "LIVEKIT_API_SECRET": settings.livekit_api_secret.get_secret_value(),
            "CONNECTOR_STORE": settings.store,
            "CONNECTOR_PORT": str(self._nobody.port),
            "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
            "CONNECTOR_PUBLIC_URL": settings.public_origin,
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])),
        }

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Runs `connector connectors …` in a thread of this process, whose loop waits as it would for another process:
        a new one needs a second of imports. The last test of this file starts one."""
        nothing_else: dict[str, str | None] = dict.fromkeys(os.environ)
        with ThreadPoolExecutor(1) as thread:
            run = partial(CliRunner().invoke, app, ["connectors", *arguments], env=nothing_else | self._environment)
            done = thread.submit(run).result(PATIENCE)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == status, done.stderr
        return done.stdout, done.stderr


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector()


@pytest.fixture
def shell(connector: Connector) -> Shell:
    return Shell(connector)


async def test_a_connector_s_life_from_the_shell(stage: Stage, shell: Shell, room: str) -> None:
    url, said = shell("create", "twilio", "--name", "Main", "--room", room)
    assert "Connector created successfully: cn_" in said
    listed, _ = shell("list", "--json")
    (row,) = [json.loads(line) for line in listed.splitlines()]
    assert (row["provider"], row["name"], row["room"], row["webhook"]) == ("twilio", "Main", room, url.strip())

    twilio, guest = await stage.twilio(), await stage.guest(room)
    twilio.inbound_call(url.strip())
    await guest.event("participant_connected")

    rotated, _ = shell("rotate-key", row["connector"])
    assert rotated != url
    refused = twilio.inbound_call(url.strip())
    await refused.ended.wait()
    assert "404" in str(refused.errors)
    shell("delete", row["connector"])
    assert shell("list")[1].endswith("there are no connectors\n")


def test_what_goes_wrong_is_one_line(shell: Shell) -> None:
    assert shell("rotate-key", "cn_none", status=1)[1].endswith("error: Connector not found\n")
    assert shell("delete", "cn_none", status=1)[1].endswith("error: Connector not found\n")
    assert "is not one of" in shell("create", "vonage", status=2)[1]
    assert "error: defaultRoomId: must have at least 1" in shell("create", "twilio", "--room", "", status=1)[1]


def test_a_region_that_is_not_configured_is_told(shell: Shell) -> None:
    url, said = shell("create", "twilio", "--region", "mars")
    assert url.count("\n") == 1
    assert "region is not configured" in said


def test_a_carrier_whose_signature_cannot_be_checked_gets_no_connector(shell: Shell) -> None:
    _, said = shell("create", "plivo", status=1)
    assert "error: provider: a connector for Plivo needs PLIVO_AUTH_TOKEN" in said
    assert shell("list")[1].endswith("there are no connectors\n")


async def test_a_running_service_is_asked_whatever_folder_the_command_runs_in(
    stage: Stage, tmp_path: Path, room: str
) -> None:
    """What was made in another folder than the service's said that it was made, and its URL answered 404."""
    connector = await stage.connector()
    settings = connector.settings
    environment = clean_environment() | {
        "LIVEKIT_API_KEY": settings.livekit_api_key,
        "LIVEKIT_API_SECRET": settings.livekit_api_secret.get_secret_value(),
        "CONNECTOR_PORT": str(settings.port),
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "connector", "connectors", "create", "twilio", "--agent", "helper"),
        env=environment,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert not (tmp_path / "connector.db").exists()
    (made,) = await connector.store.connectors.list()
    (rule,) = await connector.store.rules.list()
    assert (made.default_rule_id, rule.agent_id) == (rule.id, "helper")
    twilio = await stage.twilio()
    phone = twilio.inbound_call(out.decode().strip())
    await phone.stream_started.wait(PATIENCE)
