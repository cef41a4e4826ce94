"""The bounds of a media WebSocket, where aiohttp sets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import TestClient, TestServer

from connector.api.carrier import media_socket
from connector.api.carrier.media_socket import MAX_MESSAGE, MediaSocket, new_websocket
from connector.errors import CarrierProtocolError

HALF_A_SECOND_OF_48_KHZ = 64_000 + 500
"""Characters: base64, and the JSON around it."""


class Socket:
    """What one media WebSocket has been given."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.refused: CarrierProtocolError | None = None
        self.ended_cleanly: bool | None = None
        self.refusing = asyncio.Event()
        self.over = asyncio.Event()
        self.prepared: Callable[[web.WebSocketResponse], object] = lambda websocket: None

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        websocket = new_websocket()
        await websocket.prepare(request)
        self.prepared(websocket)
        media = MediaSocket(websocket, request)
        # A lost connection cancels this handler, here and in the service.
        await asyncio.shield(asyncio.ensure_future(self.carry(media)))
        return websocket

    async def carry(self, media: MediaSocket) -> None:
        try:
            async for text in media.messages():
                self.lengths.append(len(text))
        except CarrierProtocolError as error:
            self.refused = error
            self.refusing.set()
            await media.close(error.close_code, "")
        self.ended_cleanly = media.ended_cleanly
        self.over.set()


@pytest.fixture
async def socket() -> Socket:
    return Socket()


@pytest.fixture
async def client(socket: Socket) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application()
    app.router.add_get("/media", socket.handle)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("length", [HALF_A_SECOND_OF_48_KHZ, 300_000, MAX_MESSAGE - 1])
async def test_what_carriers_may_send_is_read(
    client: TestClient[web.Request, web.Application], socket: Socket, length: int
) -> None:
    async with client.ws_connect("/media") as carrier:
        await carrier.send_str("x" * length)
        await carrier.send_str("next")
        await carrier.close()
    assert (socket.lengths, socket.refused) == ([length, 4], None)


async def test_what_is_longer_is_refused_by_the_code_for_that(
    client: TestClient[web.Request, web.Application], socket: Socket
) -> None:
    async with client.ws_connect("/media") as carrier:
        await carrier.send_str("x" * (MAX_MESSAGE + 1))
        await carrier.receive()
        assert carrier.close_code == 1009
    assert socket.refused is not None
    assert (socket.lengths, socket.refused.close_code) == ([], 1009)


UNMASKED = b"\x00" * 4
RESERVED_BITS = b"\xf1\xff" + MAX_MESSAGE.to_bytes(8) + UNMASKED
TOO_LONG = b"\x81\xff" + (4 * MAX_MESSAGE).to_bytes(8) + UNMASKED


@pytest.mark.parametrize(("header", "code"), [(TOO_LONG, 1009), (RESERVED_BITS, 1002)], ids=["long", "reserved bits"])
async def test_a_carrier_that_is_still_sending_gets_the_close_code(
    client: TestClient[web.Request, web.Application], socket: Socket, header: bytes, code: int
) -> None:
    """Refused by the first bytes of the message; the rest comes when the connection could be closed already."""
    reader, writer = await opened(client)
    writer.write(header)
    await socket.refusing.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    for _ in range(4):
        writer.write(b"x" * MAX_MESSAGE)
        await writer.drain()
    close_frame = await reader.readexactly(4)
    assert close_frame[:1] == b"\x88"
    assert int.from_bytes(close_frame[2:4]) == code
    assert not socket.over.is_set()
    writer.close()
    await socket.over.wait()


async def test_a_carrier_that_sends_on_for_ever_is_cut_off(
    client: TestClient[web.Request, web.Application], socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_socket, "CLOSE_TIMEOUT", 0.05)
    _, writer = await opened(client)
    writer.write(TOO_LONG)

    async def send_on() -> None:
        while True:
            writer.write(b"x" * 1024)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await send_on()
    await socket.over.wait()
    writer.close()


async def opened(
    client: TestClient[web.Request, web.Application],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket after its handshake, as bytes."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(
        b"GET /media HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


@pytest.mark.parametrize("answered", [True, False], ids=["waits for the answer", "is gone by then"])
async def test_a_carrier_that_says_that_it_closes_is_not_lost(
    client: TestClient[web.Request, web.Application], socket: Socket, answered: bool
) -> None:
    async def fails(code: int, message: bytes) -> None:
        raise ClientConnectionResetError("Cannot write to closing transport")

    if not answered:
        socket.prepared = lambda websocket: setattr(websocket._writer, "close", fails)
    async with client.ws_connect("/media") as carrier:
        await carrier.send_str("text")
        await carrier.close()
    await socket.over.wait()
    assert socket.ended_cleanly is True
