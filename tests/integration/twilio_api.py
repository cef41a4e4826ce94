"""Twilio's REST API as it is on a bad day: refusing, slow, broken. For a good day there is the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from multidict import MultiDict

ACCOUNT = "AC" + "0" * 32
SID = "CA" + "1" * 32
Answer = Callable[[MultiDict[str]], Awaitable[web.Response]]


def error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"status": status, "code": code, "message": message}, status=status)


def created() -> web.Response:
    return web.json_response({"sid": SID, "status": "queued"}, status=201)


class TwilioApi:
    """`answer` is what a request to place a call gets; requests are kept as (path, form, headers)."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, MultiDict[str], dict[str, str]]] = []
        self.asked = asyncio.Event()
        """A request to place a call has come."""
        self.hung_up = asyncio.Event()
        self.answer: Answer = self._created
        self.hang_up_answer: Answer = self._updated

    def will(self, answer: web.Response) -> None:
        async def give(_: MultiDict[str]) -> web.Response:
            return answer

        self.answer = self.hang_up_answer = give

    async def hang(self, _: MultiDict[str]) -> web.Response:
        """Never answer."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def _created(self, _: MultiDict[str]) -> web.Response:
        return created()

    async def _updated(self, _: MultiDict[str]) -> web.Response:
        return web.json_response({"sid": SID, "status": "completed"})

    async def handle(self, request: web.Request) -> web.Response:
        form: Any = MultiDict(await request.post())
        self.requests.append((request.path, form, dict(request.headers)))
        if request.method == "GET":
            number, person = "+15550001111", "client:alice"
            return web.json_response({"sid": SID, "direction": "inbound", "to": number, "from": person})
        if request.path.endswith("/Calls.json"):
            self.asked.set()
            return await self.answer(form)
        self.hung_up.set()
        return await self.hang_up_answer(form)


@asynccontextmanager
async def twilio_api() -> AsyncIterator[TwilioApi]:
    api = TwilioApi()
    app = web.Application()
    for method in ("GET", "POST"):
        app.router.add_route(method, "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield api
    finally:
        await runner.cleanup()
