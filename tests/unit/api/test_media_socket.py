"""The bounds of a media WebSocket, where aiohttp sets them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from connector.api.carrier.media import MAX_MESSAGE, MediaSocket, new_websocket
from connector.errors import CarrierProtocolError

HALF_A_SECOND_OF_48_KHZ = 64_000 + 500
"""Characters: base64, and the JSON around it."""


class Socket:
    """What one media WebSocket has been given."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.refused: CarrierProtocolError | None = None

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        websocket = new_websocket()
        await websocket.prepare(request)
        media = MediaSocket(websocket, request)
        try:
            async for text in media.messages():
                self.lengths.append(len(text))
        except CarrierProtocolError as error:
            self.refused = error
            await media.close(error.close_code, "")
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
