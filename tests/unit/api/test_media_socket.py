"""The bounds of a media WebSocket, where aiohttp sets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import TestClient, TestServer

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
        self.over = asyncio.Event()
        self.prepared: Callable[[web.WebSocketResponse], object] = lambda websocket: None

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        websocket = new_websocket()
        await websocket.prepare(request)
        self.prepared(websocket)
        media = MediaSocket(websocket, request)
        try:
            async for text in media.messages():
                self.lengths.append(len(text))
        except CarrierProtocolError as error:
            self.refused = error
            await media.close(error.close_code, "")
        self.ended_cleanly = media.ended_cleanly
        self.over.set()
        return websocket


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
