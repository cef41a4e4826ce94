"""A carrier's REST API that answers what a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Asked:
    method: str
    path: str
    body: Any
    authorization: str


@dataclass
class Api:
    """`answers` are given in turn, the last for ever."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: list[tuple[int, Any]] = field(default_factory=lambda: [(200, {})])

    async def handle(self, request: web.Request) -> web.Response:
        body: Any = None
        if request.content_type == "application/x-www-form-urlencoded":
            body = dict(await request.post())
        elif request.can_read_body:
            body = await request.json()
        self.asked.append(Asked(request.method, request.raw_path, body, request.headers["Authorization"]))
        status, document = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(document, str):
            return web.Response(status=status, text=document, headers={"Location": f"{self.url}/elsewhere"})
        return web.json_response(document, status=status)


@asynccontextmanager
async def carrier_api() -> AsyncIterator[Api]:
    api = Api()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield api
    finally:
        await runner.cleanup()
