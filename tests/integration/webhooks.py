"""A customer's server that is told of calls, and the REST API as a customer uses it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from connector.app import Connector
from connector.cli.common import api_token
from connector.config import Settings
from connector.model.call import CallRecord, CallState, Direction
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from demo.ports import PortLease

EVERY_EVENT = [event.value for event in LifecycleEvent]
PATIENCE = 20.0


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw)  # type: ignore[no-any-return]

    @property
    def type(self) -> str:
        return str(self.body["webhookType"])

    @property
    def data(self) -> dict[str, Any]:
        return self.body["data"]  # type: ignore[no-any-return]

    @property
    def id(self) -> str:
        assert self.headers["videosdk-delivery-id"] == self.body["id"]
        return str(self.body["id"])

    def verify(self, public_key: str, header: str = "videosdk-signature") -> None:
        """As anybody would; raises InvalidSignature."""
        key = load_pem_public_key(public_key.encode())
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(base64.b64decode(self.headers[header]), self.raw, padding.PKCS1v15(), SHA256())


class Receiver:
    """Listens on a port of its own once it is started, and may be stopped and started again. `status` is what it
    answers, unless `silent` is cleared: then it takes requests and says nothing."""

    def __init__(self) -> None:
        self._lease = PortLease()
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Condition()
        self.received: list[Received] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answering = asyncio.Event()
        self.answering.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._lease.port}/hook"

    async def _handle(self, request: web.Request) -> web.Response:
        received = Received(request.path_qs, dict(request.headers), await request.read())
        async with self._changed:
            self.received.append(received)
            self._changed.notify_all()
        await self.answering.wait()
        return web.Response(status=self.status, headers=self.headers)

    async def start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._lease.port).start()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answering.set()
        await self.stop()
        self._lease.close()

    async def until(self, condition: Callable[[list[Received]], bool], patience: float = PATIENCE) -> list[Received]:
        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: condition(self.received))
        return list(self.received)

    async def count(self, number: int, patience: float = PATIENCE) -> list[Received]:
        return await self.until(lambda received: len(received) >= number, patience)

    def types(self, call_id: str = "") -> list[str]:
        return [one.type for one in self.received if not call_id or one.data["callId"] == call_id]


class Rest:
    """The connector's REST API with a good token."""

    def __init__(self, http: aiohttp.ClientSession, settings: Settings) -> None:
        self._http = http
        self._origin = settings.public_origin
        self._headers = {"Authorization": api_token(settings, 600)}

    async def ask(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        async with self._http.request(method, self._origin + path, json=body, headers=self._headers) as response:
            answer = await response.json()
            assert response.status == status, answer
            return answer

    async def register(self, url: str, events: list[str] = EVERY_EVENT) -> str:
        webhook = await self.ask("POST", "/v2/sip/webhooks", {"url": url, "events": events}, 201)
        return str(webhook["id"])

    async def log_of(self, webhook_id: str) -> list[dict[str, Any]]:
        answer = await self.ask("GET", f"/v2/sip/webhooks/{webhook_id}/deliveries")
        return answer["data"]  # type: ignore[no-any-return]

    async def public_key(self) -> str:
        return str((await self.ask("GET", "/v2/public/rsa-public-key"))["publicKey"])


def _record(call_id: str = "call_1") -> CallRecord:
    return CallRecord(
        call_id, Provider.TWILIO, Direction.INBOUND, "lobby", "caller", CallState.PENDING, "test", time.time()
    )


async def happened(connector: Connector, *events: LifecycleEvent, call_id: str = "call_1") -> None:
    """As if a call of this connector had told them."""
    for event in events:
        await connector.webhooks.lifecycle.happened(event, _record(call_id), {})
