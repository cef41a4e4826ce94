"""The `connector` command as an operator runs it: a process, its exit status and every line it prints."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from connector.cli.root_commands import app
from connector.model.call import CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.storage.sqlite import SqliteStore
from connector.storage.stores import store_at
from demo.connector_process import clean_environment
from demo.livekit_server import LiveKitServer
from demo.ports import PortLease
from demo.process import ChildProcess
from tests.integration.harness import Stage
from tests.integration.wire import JSON, LIVEKIT_PATH

PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    out: str
    err: str


@pytest.fixture
def env(stage: Stage, tmp_path: Path) -> dict[str, str]:
    """A set-up that works, on a free port."""
    settings = stage.settings()
    return {
        **clean_environment(),
        **stage.livekit.environment,
        "CONNECTOR_PORT": str(settings.port),
        "CONNECTOR_GRPC_PORT": "0",
        "CONNECTOR_STORE": f"sqlite:///{tmp_path}/calls.db",
    }


async def run(env: dict[str, str], *arguments: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "connector", *arguments),
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def ask(env: dict[str, str], *arguments: str) -> Ran:
    """A command that only looks, in this process: a new one takes a second to start."""
    nothing_else: dict[str, str | None] = dict.fromkeys(os.environ)
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=nothing_else | env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@asynccontextmanager
async def serving(env: dict[str, str], url: str, *arguments: str) -> AsyncIterator[ChildProcess]:
    process = ChildProcess("connector", [sys.executable, "-m", "connector", "serve", *arguments], env)
    process.spawn()
    try:
        await process.until_answers(url, PATIENCE)
        yield process
    finally:
        await process.stop()
        process.close()


def origin(env: dict[str, str]) -> str:
    return f"http://127.0.0.1:{env['CONNECTOR_PORT']}"


# serve ------------------------------------------------------------------------------------------------------


async def test_serve_takes_its_settings_from_the_environment(env: dict[str, str]) -> None:
    async with serving(env, origin(env) + "/readyz") as process:
        await process.until_prints("connector ready", PATIENCE)
        (line,) = [json.loads(line) for line in process.log().splitlines() if "connector ready" in line]
    assert (line["host"], line["port"]) == ("127.0.0.1", int(env["CONNECTOR_PORT"]))


async def test_flags_win_over_environment_and_file(env: dict[str, str], tmp_path: Path) -> None:
    lease = PortLease()
    file = tmp_path / "connector.yaml"
    file.write_text(f"host: 127.0.0.9\nport: 1\nlog_format: pretty\nstore: sqlite:///{tmp_path}/from-file.db\n")
    del env["CONNECTOR_STORE"]
    arguments = ["--config", str(file), "--host", "127.0.0.1", "--port", str(lease.port)]
    arguments += ["--public-url", "https://voice.example.com"]
    async with serving(env, f"http://127.0.0.1:{lease.port}/readyz", *arguments) as process:
        await process.until_prints("public_url=https://voice.example.com", PATIENCE)
        assert not process.log().lstrip().startswith("{")
    lease.close()
    assert (tmp_path / "from-file.db").exists()


async def test_serve_by_a_file_alone(stage: Stage, env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "connector.yaml"
    livekit = stage.livekit
    file.write_text(
        f"livekit_url: {livekit.url}\nlivekit_api_key: {livekit.api_key}\nlivekit_api_secret: {livekit.api_secret}\n"
        f"port: {env['CONNECTOR_PORT']}\ngrpc_port: 0\nstore: {env['CONNECTOR_STORE']}\n"
    )
    async with serving(clean_environment(), origin(env) + "/readyz", "--config", str(file)):
        pass


async def test_sigterm_ends_it_with_status_0(env: dict[str, str]) -> None:
    async with serving(env, origin(env) + "/readyz") as process:
        os.kill(process.pid, 15)
        await process.until_prints("connector stopped", PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while process.is_running:  # noqa: ASYNC110 - a child of a thread-less Popen announces nothing
                await asyncio.sleep(0.02)
        assert process._process is not None
        assert process._process.returncode == 0


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"CONNECTOR_PORT": "http"}, [r"error: CONNECTOR_PORT: Input should be a valid integer.*"]),
        (
            {"LIVEKIT_API_KEY": "", "LIVEKIT_API_SECRET": ""},
            [r"error: LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be set: .*"],
        ),
        (
            {"CONNECTOR_MAX_CALLS": "0", "CONNECTOR_STORE": "mysql://x", "LIVEKIT_URL": "lk:7880"},
            [r"error: LIVEKIT_URL: must be a URL .*", r"error: CONNECTOR_STORE: .*", r"error: CONNECTOR_MAX_CALLS: .*"],
        ),
    ],
)
async def test_bad_settings_are_one_line_each_and_status_2(
    env: dict[str, str], changes: dict[str, str], lines: list[str]
) -> None:
    ran = await ask(env | changes, "serve")
    assert (ran.status, ran.out) == (2, "")
    printed = ran.err.splitlines()
    assert len(printed) == len(lines), ran.err
    for line, pattern in zip(printed, lines, strict=True):
        assert re.fullmatch(pattern, line)


async def test_a_file_that_is_not_there_is_status_2(env: dict[str, str], tmp_path: Path) -> None:
    ran = await ask(env, "serve", "--config", str(tmp_path / "none.yaml"))
    assert (ran.status, ran.err) == (2, f"error: cannot read {tmp_path / 'none.yaml'}: No such file or directory\n")


async def test_a_port_that_is_taken_is_one_clear_line(env: dict[str, str], livekit: LiveKitServer) -> None:
    ran = await run(env | {"CONNECTOR_PORT": str(livekit.port)}, "serve")
    assert (ran.status, ran.err) == (
        1,
        f"error: cannot listen on 127.0.0.1 port {livekit.port}: address already in use; "
        "see CONNECTOR_HOST and CONNECTOR_PORT\n",
    )


async def test_a_store_that_cannot_be_made_is_one_clear_line(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = await run(env | {"CONNECTOR_STORE": f"sqlite:///{tmp_path}/file/calls.db"}, "serve")
    assert ran.status == 1
    assert re.fullmatch(rf"error: the store {tmp_path}/file/calls\.db failed: .*\n", ran.err)


async def test_serve_starts_although_livekit_is_away(env: dict[str, str]) -> None:
    """The two may start in any order; `/readyz` and a warning say what is missing."""
    env = env | {"LIVEKIT_URL": "ws://127.0.0.1:1", "CONNECTOR_MAXCALLS": "5"}
    async with (
        serving(env, origin(env) + "/healthz") as process,
        aiohttp.ClientSession() as session,
        session.get(origin(env) + "/readyz") as response,
    ):
        assert response.status == 503
        assert "connection refused" in (await response.json())["problems"][0]
        await process.until_prints("LiveKit cannot be used", PATIENCE)
        await process.until_prints("CONNECTOR_MAXCALLS is not a setting; did you mean CONNECTOR_MAX_CALLS?", PATIENCE)


async def test_serve_warns_of_a_secret_that_livekit_refuses(env: dict[str, str]) -> None:
    env = env | {"LIVEKIT_API_SECRET": "another-secret-of-thirty-two-characters"}
    async with serving(env, origin(env) + "/healthz") as process:
        await process.until_prints("refused the connector's credentials", PATIENCE)


# doctor -----------------------------------------------------------------------------------------------------


def findings(out: str) -> dict[str, str]:
    """Level by subject."""
    found = re.findall(
        r"^(ok|warning|problem) +(LiveKit|credentials|public URL|clock|store|Twilio signatures) ", out, re.M
    )
    return {subject: level for level, subject in found}


async def test_the_doctor_finds_nothing_wrong_with_a_good_set_up(env: dict[str, str]) -> None:
    env = env | {"TWILIO_AUTH_TOKEN": "t" * 32}
    async with serving(env, origin(env) + "/readyz"):
        ran = await ask(env | {"CONNECTOR_PUBLIC_URL": origin(env)}, "doctor")
    assert findings(ran.out) == {
        "LiveKit": "ok",
        "credentials": "ok",
        "public URL": "ok",
        "clock": "ok",
        "store": "ok",
        "Twilio signatures": "ok",
    }
    # All but the https that nothing on a loopback has.
    assert [line for line in ran.out.splitlines() if line.startswith("problem")] == [
        line for line in ran.out.splitlines() if "is not https; carriers open wss:// only" in line
    ]
    assert ran.out.rstrip().endswith("1 to fix before calls can work.")


async def test_the_doctor_says_what_to_mend(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad = {"LIVEKIT_URL": "ws://127.0.0.1:1", "CONNECTOR_STORE": f"sqlite:///{tmp_path}/file/calls.db"}
    ran = await ask(env | bad, "doctor")
    assert ran.status == 1
    assert findings(ran.out) == {
        "LiveKit": "problem",
        "public URL": "problem",
        "store": "problem",
        "Twilio signatures": "warning",
    }
    assert "http://127.0.0.1:1 cannot be reached: connection refused" in ran.out
    assert "/healthz cannot be reached: connection refused" in ran.out
    assert ran.out.count("fix:") == 5
    assert ran.err == ""


@pytest.mark.parametrize("name", ["LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"])
async def test_the_doctor_tells_wrong_credentials_from_a_server_that_is_away(env: dict[str, str], name: str) -> None:
    wrong = "wrong-" + "w" * 34
    ran = await ask(env | {name: wrong}, "doctor")
    assert ran.status == 1
    assert (findings(ran.out)["LiveKit"], findings(ran.out)["credentials"]) == ("ok", "problem")
    assert wrong not in ran.out


async def test_the_doctor_sees_that_something_else_answers(env: dict[str, str], livekit: LiveKitServer) -> None:
    ran = await ask(env | {"CONNECTOR_PUBLIC_URL": livekit.http_url}, "doctor")
    assert f"{livekit.http_url}/healthz is not a connector" in ran.out


async def test_the_doctor_prints_no_secret(env: dict[str, str]) -> None:
    ran = await ask(env | {"TWILIO_AUTH_TOKEN": "t" * 32}, "doctor")
    for secret in (env["LIVEKIT_API_SECRET"], "t" * 32):
        assert secret not in ran.out + ran.err


# token ------------------------------------------------------------------------------------------------------


async def test_a_printed_token_opens_the_api(env: dict[str, str], room: str) -> None:
    printed = await ask(env, "token", "--valid-for", "60")
    assert (printed.status, printed.err, len(printed.out.split())) == (0, "", 1)
    headers = {"Authorization": f"Bearer {printed.out.strip()}", "Content-Type": JSON}
    async with serving(env, origin(env) + "/readyz"), aiohttp.ClientSession() as session:
        body = json.dumps({"room_name": room})
        async with session.post(origin(env) + LIVEKIT_PATH, data=body, headers=headers) as response:
            assert response.status == 200
            assert (await response.json())["connect_url"].startswith("ws://")


# calls ------------------------------------------------------------------------------------------------------

START = time.time() // 1 - 3600
CALL = CallRecord(
    call_id="call_1",
    provider=Provider.TWILIO,
    direction=Direction.OUTBOUND,
    room="support",
    identity="caller",
    state=CallState.ENDED,
    owner="test",
    created_at=START,
    from_number="+15557654321",
    to_number="+15551234567",
    started_at=START + 10.0,
    ended_at=START + 72.5,
    end_reason=EndReason.CARRIER_HANGUP,
)


@pytest.fixture
async def kept(tmp_path: Path, env: dict[str, str]) -> dict[str, str]:
    """An environment whose store has three calls, one of them live."""
    store = SqliteStore(tmp_path / "calls.db")
    await store.open()
    await store.save_call(CALL)
    open_call = replace(CALL, ended_at=0.0, end_reason=None)
    await store.save_call(
        replace(
            open_call,
            call_id="call_2",
            state=CallState.ACTIVE,
            created_at=CALL.created_at + 60,
            started_at=time.time() - 5,
        )
    )
    await store.save_call(
        replace(
            open_call,
            call_id="call_3",
            state=CallState.RINGING,
            created_at=CALL.created_at + 120,
            started_at=0.0,
            from_number="",
            to_number="",
        )
    )
    await store.close()
    return env


def reads_the_store(env: dict[str, str]) -> str:
    place = env["CONNECTOR_STORE"].removeprefix("sqlite:///")
    return f"no connector answers at {origin(env)}: using the store {place}\n"


async def test_calls_are_listed_newest_first_with_masked_numbers(kept: dict[str, str]) -> None:
    ran = await ask(kept, "calls")
    assert (ran.status, ran.err) == (0, reads_the_store(kept))
    header, *rows = [line.split() for line in ran.out.splitlines()]
    assert header[:5] == ["call", "id", "provider", "direction", "room"]
    assert [row[0] for row in rows] == ["call_3", "call_2", "call_1"]
    assert rows[2][1:7] == ["twilio", "outbound", "support", "+1********21", "+1********67", "ended"]
    assert rows[2][-2:] == ["62.5", "carrier_hangup"]
    assert "5551234567" not in ran.out


async def test_calls_as_json_is_one_object_a_line(kept: dict[str, str]) -> None:
    ran = await ask(kept, "calls", "--json")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["call_id"] for row in rows] == ["call_3", "call_2", "call_1"]
    assert (rows[2]["to"], rows[2]["seconds"], rows[2]["end_reason"]) == ("+1********67", 62.5, "carrier_hangup")
    assert 5 <= rows[1]["seconds"] < 60
    assert rows[1]["end_reason"] == ""


async def test_calls_shows_full_numbers_when_asked_and_only_so_many(kept: dict[str, str]) -> None:
    ran = await ask(kept, "calls", "--json", "--full-numbers", "--limit", "2")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["call_id"] for row in rows] == ["call_3", "call_2"]
    assert rows[1]["to"] == "+15551234567"


async def test_calls_says_so_when_there_are_none(env: dict[str, str]) -> None:
    place = env["CONNECTOR_STORE"].removeprefix("sqlite:///")
    ran = await ask(env, "calls")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"{reads_the_store(env)}error: there is no store {place}; ")
    store = store_at(env["CONNECTOR_STORE"])
    await store.open()
    await store.close()
    ran = await ask(env, "calls")
    assert (ran.status, ran.out, ran.err) == (0, "", f"{reads_the_store(env)}there are no calls\n")


async def test_calls_are_listed_while_the_service_runs(kept: dict[str, str]) -> None:
    place = f"{kept['CONNECTOR_STORE'].removeprefix('sqlite:///')}.none"
    elsewhere = {**kept, "CONNECTOR_STORE": f"sqlite:///{place}"}
    async with serving(kept, origin(kept) + "/readyz"):
        for settings in (kept, elsewhere):
            ran = await ask(settings, "calls")
            assert (ran.out.count("call_"), ran.err) == (3, "")
    assert not os.path.exists(place)  # noqa: ASYNC240 - nothing else runs
