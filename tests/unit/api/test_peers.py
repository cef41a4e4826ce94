"""Two processes of the service on real sockets: one asks, the other one holds the call."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from connector.api.peer_endpoint import PORTS, PeerEndpoint
from connector.deadlines import deadline
from connector.errors import (
    ConnectorError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from connector.metrics import Metrics
from connector.model.call import AgentDispatch, CallRecord, CallState, Direction, Transfer
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.peers import lease_address
from connector.peers.client import PATH, PROOF, PeerClient, patience
from connector.peers.commands import (
    CallCommand,
    ClearAudio,
    Done,
    EndCall,
    NotCarriedOut,
    Refused,
    Request,
    SendDtmf,
    SwitchRoom,
    TransferCall,
    answer_of,
    encoded,
    request_of,
)
from connector.peers.failures import AnswerLost, NoPeerAddress, NotHeld, PeerGone, PeerUnreachable
from connector.peers.lease_address import advertised, reachable_from_here
from connector.peers.request_tokens import PeerSignatures
from connector.storage.base import StoreError

SECRET = "a-secret-of-at-least-thirty-two-bytes"
FORMER = "the-secret-before-the-rotation-of-today"
RECORD = CallRecord(
    call_id="call_1",
    provider=Provider.PLIVO,
    direction=Direction.INBOUND,
    room="lobby",
    identity="caller",
    state=CallState.ENDED,
    owner="holder",
    created_at=1763734740.123456,
    end_reason=EndReason.ENDED_BY_API,
    timelog=(("call-started", 1763734740.25),),
)
COMMANDS: tuple[CallCommand, ...] = (
    SendDtmf("call_1", "12#"),
    ClearAudio("call_1"),
    SwitchRoom("call_1", "sales", (AgentDispatch("helper", "{}", 1, "blue", {"a": "ü"}),)),
    TransferCall("call_1", Transfer("+15550001111", 20, "+15552223333", "Bye."), wait=True),
    EndCall("call_1"),
)
DTMF = COMMANDS[0]


class Leases:
    def __init__(self) -> None:
        self.of: dict[str, str] = {}

    async def address_of(self, owner: str) -> str:
        return self.of.get(owner, "")


class Holder:
    """The process that holds the call: carries out what `does` says."""

    def __init__(self) -> None:
        self.asked: list[CallCommand] = []
        self.canceled = asyncio.Event()
        self.does: Callable[[], Awaitable[CallRecord]] = self._answer

    async def _answer(self) -> CallRecord:
        return RECORD

    async def carry_out(self, command: CallCommand) -> CallRecord:
        self.asked.append(command)
        try:
            return await self.does()
        except asyncio.CancelledError:
            self.canceled.set()
            raise

    def raises(self, error: Exception) -> None:
        async def fail() -> CallRecord:
            raise error

        self.does = fail

    def hangs(self) -> None:
        async def wait() -> CallRecord:
            await asyncio.Event().wait()
            return RECORD

        self.does = wait


class Scene:
    def __init__(self) -> None:
        self.leases = Leases()
        self.holder = Holder()
        self.metrics = Metrics()

    def results(self) -> dict[str, float]:
        (family,) = self.metrics.peer_requests.collect()
        return {s.labels["result"]: s.value for s in family.samples if s.name.endswith("_total")}

    @asynccontextmanager
    async def endpoint(
        self, owner: str = "holder", secret: str | tuple[str, ...] = SECRET, is_draining: bool = False
    ) -> AsyncIterator[str]:
        """Of a process with this name; its URL."""
        signatures, carry_out = PeerSignatures(secret), self.holder.carry_out
        endpoint = PeerEndpoint(owner, signatures, carry_out, Metrics(), lambda: is_draining)
        await endpoint.start("127.0.0.1", 0)
        self.leases.of[owner] = endpoint.address
        try:
            yield reachable_from_here(endpoint.address) or ""
        finally:
            await endpoint.stop()

    @asynccontextmanager
    async def client(self, secret: str | tuple[str, ...] = SECRET) -> AsyncIterator[PeerClient]:
        client = PeerClient("asker", PeerSignatures(secret), self.leases, self.metrics)
        await client.start()
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def scene() -> Scene:
    return Scene()


@asynccontextmanager
async def stranger(scene: Scene, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[None]:
    """Another program has the address of the holder."""
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    async with TestServer(application, host="127.0.0.1") as server:
        scene.leases.of["holder"] = advertised(str(server.make_url("")).rstrip("/"))
        yield


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
async def test_a_command_is_carried_out_by_its_owner_and_answered_with_the_record(
    scene: Scene, command: CallCommand
) -> None:
    async with scene.endpoint(), scene.client() as client:
        assert await client.ask("holder", command) == RECORD
    assert scene.holder.asked == [command]
    assert scene.results() == {"done": 1.0}


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FailedPrecondition("the call is ringing, not active"), FailedPrecondition, "the call is ringing, not active"),
        (InvalidArgument("timeout", "is too long"), InvalidArgument, "timeout: is too long"),
        (NotFound("no such number"), NotFound, "no such number"),
        (ResourceExhausted("too many digits"), ResourceExhausted, "too many digits"),
        (Unimplemented("not this carrier"), Unimplemented, "not this carrier"),
        (StoreError("the store is away"), Unavailable, "the store is away"),
        (Internal("check the credentials"), Internal, "check the credentials"),
        (ZeroDivisionError("a bug"), Internal, "internal error"),
        (NotHeld("here no more"), NotHeld, "the process holder does not hold the call any more"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_the_owners_error_is_the_answer(
    scene: Scene, error: Exception, kind: type[ConnectorError], message: str
) -> None:
    scene.holder.raises(error)
    async with scene.endpoint(), scene.client() as client:
        with pytest.raises(kind) as raised:
            await client.ask("holder", DTMF)
    assert type(raised.value) is kind
    assert raised.value.message == message
    if isinstance(error, InvalidArgument):
        assert isinstance(raised.value, InvalidArgument)
        assert raised.value.field == error.field


async def test_an_owner_that_is_gone_is_known_at_once(scene: Scene) -> None:
    async with scene.client() as client:
        async with scene.endpoint():
            assert await client.is_reachable("holder")
        assert not await client.is_reachable("holder")
        with pytest.raises(PeerGone, match="holder, which held the call, is gone"):
            await client.ask("holder", DTMF)
        assert await client.is_reachable("asker"), "this process lives"
    assert scene.results() == {"gone": 1.0}


async def test_a_process_that_drains_lives_and_accepts_no_calls(scene: Scene) -> None:
    async with scene.client() as client:
        async with scene.endpoint():
            assert await client.takes_calls("holder")
        assert not await client.takes_calls("holder")
        async with scene.endpoint(is_draining=True):
            assert not await client.takes_calls("holder")
            assert await client.is_reachable("holder")
            await client.ask("holder", DTMF)


async def test_an_address_that_another_process_of_the_service_has_now_is_refused(scene: Scene) -> None:
    async with scene.endpoint("another"), scene.client() as client:
        scene.leases.of["holder"] = scene.leases.of["another"]
        with pytest.raises(PeerGone, match="another one has its address"):
            await client.ask("holder", DTMF)
        assert not await client.is_reachable("holder")
    assert scene.holder.asked == []


async def test_a_stranger_at_the_address_is_not_believed(scene: Scene) -> None:
    async def pretend(_: web.Request) -> web.Response:
        return web.Response(body=encoded(Done(RECORD)), headers={PROOF: "0" * 64})

    async with stranger(scene, pretend), scene.client() as client:
        with pytest.raises(PeerUnreachable, match="is not the process holder"):
            await client.ask("holder", DTMF)
        assert await client.is_reachable("holder"), "nothing is known about it: its lease decides"


async def test_a_process_with_another_secret_carries_out_nothing(scene: Scene) -> None:
    async with scene.endpoint(), scene.client("another-secret-of-thirty-two-bytes!!") as client:
        with pytest.raises(PeerUnreachable, match="CONNECTOR_SECRET"):
            await client.ask("holder", DTMF)
        assert await client.is_reachable("holder")
    assert scene.holder.asked == []


@pytest.mark.parametrize(
    ("asks", "answers"),
    [((SECRET, FORMER), FORMER), (FORMER, (SECRET, FORMER)), ((SECRET, FORMER), (SECRET, FORMER))],
    ids=["the owner has the former secret", "the asker has the former secret", "both have both"],
)
async def test_a_rotation_of_the_secret_disturbs_nobody(
    scene: Scene, asks: str | tuple[str, ...], answers: str | tuple[str, ...]
) -> None:
    async with scene.endpoint(secret=answers), scene.client(asks) as client:
        await client.ask("holder", DTMF)
    assert scene.holder.asked == [DTMF]


async def test_a_slow_owner_is_waited_for_until_the_callers_deadline_and_gives_up_too(scene: Scene) -> None:
    scene.holder.hangs()
    async with scene.endpoint(), scene.client() as client:
        with pytest.raises(DeadlineExceeded):
            async with deadline(0.2):
                await client.ask("holder", DTMF)
        async with asyncio.timeout(10):
            await scene.holder.canceled.wait()


async def test_an_owner_that_is_stopped_is_waited_for_until_the_callers_deadline(scene: Scene) -> None:
    """The kernel still accepts connections for a process that is stopped: nobody reads them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        scene.leases.of["holder"] = advertised(f"http://127.0.0.1:{listening.getsockname()[1]}")
        async with scene.client() as client:
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded, match="holder, which holds the call, did not answer in time"):
                async with deadline(0.5):
                    await client.ask("holder", EndCall("call_1"))
            assert time.monotonic() - started < 5
            assert await client.is_reachable("holder"), "it may go on"
    assert scene.results() == {"deadline": 1.0}


async def test_a_client_that_leaves_cancels_the_request_at_the_owner(scene: Scene) -> None:
    scene.holder.hangs()
    async with scene.endpoint(), scene.client() as client:
        asking = asyncio.create_task(client.ask("holder", DTMF))
        async with asyncio.timeout(10):
            while not scene.holder.asked:  # noqa: ASYNC110 - the fake announces nothing
                await asyncio.sleep(0.01)
            asking.cancel()
            await scene.holder.canceled.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert scene.results() == {"canceled": 1.0}


async def test_digits_are_not_sent_twice_when_the_answer_is_lost(scene: Scene) -> None:
    received = 0

    async def die(request: web.Request) -> web.Response:
        nonlocal received
        received += 1
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with stranger(scene, die), scene.client((SECRET, FORMER)) as client:
        with pytest.raises(AnswerLost, match="whether the request succeeded is not known"):
            await client.ask("holder", DTMF)
    assert received == 1
    assert scene.results() == {"answer_lost": 1.0}


async def test_a_loopback_address_of_another_machine_is_not_asked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be another process here, or nobody: a process that lives would be taken for dead."""
    async with scene.client() as client:
        async with scene.endpoint():
            monkeypatch.setattr(lease_address, "network_id", lambda: "another machine")
            with pytest.raises(NoPeerAddress, match="CONNECTOR_PEER_HOST"):
                await client.ask("holder", DTMF)
        assert await client.is_reachable("holder")
    assert scene.holder.asked == []


async def test_a_process_without_an_address_cannot_be_asked(scene: Scene) -> None:
    async with scene.client() as client:
        with pytest.raises(NoPeerAddress, match="holder"):
            await client.ask("holder", DTMF)
        assert await client.is_reachable("holder"), "an earlier version has none"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.0.0.5:8090", "http://10.0.0.5:8090"),
        ("https://connector-1.example.com", "https://connector-1.example.com"),
        ("http://127.0.0.1:1", f"http://127.0.0.1:1#{lease_address.network_id()}"),
        ("http://127.8.8.8:1", f"http://127.8.8.8:1#{lease_address.network_id()}"),
        ("http://[::1]:1", f"http://[::1]:1#{lease_address.network_id()}"),
        ("http://localhost:1", f"http://localhost:1#{lease_address.network_id()}"),
    ],
)
def test_a_loopback_address_tells_where_it_is_valid(url: str, address: str) -> None:
    assert advertised(url) == address
    assert reachable_from_here(address) == url


# What reaches the endpoint


async def post(url: str, body: bytes, token: str) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as http, http.post(url + PATH, data=body, headers=headers) as response:
        return response.status, await response.read()


def token_for(body: bytes, owner: str = "holder", seconds: float = 60.0, secret: str = SECRET) -> str:
    return PeerSignatures(secret).tokens(owner, body, time.time() + seconds)[0].text


async def test_nothing_is_answered_without_a_token_for_this_request(scene: Scene) -> None:
    body = encoded(Request(DTMF, 5))
    other = encoded(Request(DTMF, 5))
    async with scene.endpoint() as url, aiohttp.ClientSession() as http:
        for token in ("", "nonsense", "ü", token_for(body)[:-1], token_for(other), token_for(body, secret=FORMER)):
            status, text = await post(url, body, token)
            assert (status, b"holder" in text) == (403, False)
        assert (await http.get(url + PATH)).status == 405
        assert (await http.get(url + "/")).status == 404
    assert scene.holder.asked == []


async def test_a_request_that_is_delivered_twice_is_carried_out_once(scene: Scene) -> None:
    body = encoded(Request(DTMF, 5))
    token = token_for(body)
    async with scene.endpoint() as url:
        first, second = [answer_of((await post(url, body, token))[1]) for _ in range(2)]
    assert (first, second) == (Done(RECORD), NotCarriedOut("repeated"))
    assert scene.holder.asked == [DTMF]


async def test_a_request_is_not_carried_out_long_after_its_deadline(scene: Scene) -> None:
    """A process that was stopped finds it in its socket when it goes on."""
    body = encoded(Request(DTMF, 5))
    async with scene.endpoint() as url:
        status, answer = await post(url, body, token_for(body, seconds=-0.001))
    assert (status, answer_of(answer)) == (200, NotCarriedOut("expired"))
    assert scene.holder.asked == []


async def test_a_command_of_a_newer_version_is_refused_as_such(scene: Scene) -> None:
    body = encoded(Request(DTMF, 5)).replace(b"SendDtmf", b"MakeCoffee")
    async with scene.endpoint() as url:
        _, answer = await post(url, body, token_for(body))
    told = answer_of(answer)
    assert isinstance(told, Refused)
    assert told.code == "unimplemented"


def test_fields_of_a_newer_version_are_ignored() -> None:
    body = encoded(Request(DTMF, 5, "id")).replace(b'"seconds"', b'"more":{"a":1},"seconds"')
    assert request_of(body) == Request(DTMF, 5, "id")


async def test_an_address_that_cannot_be_used_is_told_at_the_start(scene: Scene) -> None:
    async with scene.endpoint() as url:
        port = int(url.rpartition(":")[2])
        endpoint = PeerEndpoint("other", PeerSignatures(SECRET), scene.holder.carry_out, Metrics())
        with pytest.raises(OSError, match="CONNECTOR_PEER_PORT"):
            await endpoint.start("127.0.0.1", port)
        assert endpoint.address == ""


async def test_several_processes_with_the_same_settings_take_one_port_each(scene: Scene) -> None:
    async with scene.endpoint() as url:
        port = int(url.rpartition(":")[2])
        endpoint = PeerEndpoint("other", PeerSignatures(SECRET), scene.holder.carry_out, Metrics())
        await endpoint.start("127.0.0.1", port, f"http://10.0.0.5:{port}", several=True)
        scene.leases.of["other"] = endpoint.address
        moved = int(endpoint.address.rpartition(":")[2])
        scene.leases.of["other"] = advertised(f"http://127.0.0.1:{moved}")
        async with scene.client() as client:
            assert await client.ask("other", DTMF) == RECORD
        await endpoint.stop()
    assert port < moved < port + PORTS


def test_a_transfer_that_is_waited_for_has_its_ringing_time() -> None:
    transfer = Transfer("+15550001111", 600)
    assert patience(TransferCall("call_1", transfer, wait=True)) > 600
    assert patience(TransferCall("call_1", transfer)) < 60
