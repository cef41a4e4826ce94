"""The REST API on a socket, over an empty store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from livekit import api

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.api.auth import Authorizer
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.api.refusals import Refusals
from connector.api.rest.call_operations import CallRest
from connector.api.rest.connector_operations import ConnectorRest
from connector.api.rest.openapi import document
from connector.api.rest.operation import Operation
from connector.api.rest.routes import RestRoutes
from connector.api.rest.rule_operations import RuleRest
from connector.call.registry.control import TransferWish
from connector.errors import ConnectorError, NotFound
from connector.metrics import Metrics
from connector.model.call import CallRecord, CallState
from connector.storage.base import Store
from connector.tokens import WebhookKeys
from tests.carriers import CARRIERS
from tests.unit.api.sqlite_store import empty_store

KEY, SECRET = "APIkey", "a-secret-of-at-least-thirty-two-bytes"
PUBLIC = "https://calls.example.com"
TOKEN = api.AccessToken(KEY, SECRET).with_grants(api.VideoGrants(room_create=True)).to_jwt()

ACCOUNTS = {
    name: CarrierAccounts(carrier.account_rules, [CarrierAccount("", ("secret",))])
    for name, carrier in CARRIERS.items()
}


class Control:
    """Holds no call: what the store has is all there is."""

    def __init__(self, store: Store) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.error: ConnectorError | None = None
        self.wish: TransferWish | None = None
        self.waits = False
        self.changes: dict[str, Any] = {}
        """What a transfer makes of the record."""
        self._store = store

    async def record(self, call_id: str) -> CallRecord:
        record = await self._store.get_call(call_id)
        if record is None:
            raise NotFound("no such call")
        return record

    def freshest(self, record: CallRecord) -> CallRecord:
        return record

    async def _do(self, call_id: str, *asked: str, **changes: Any) -> CallRecord:
        record = await self.record(call_id)
        if self.error is not None:
            raise self.error
        self.asked.append(asked)
        return replace(record, **changes)

    async def end(self, call_id: str) -> CallRecord:
        return await self._do(call_id, "end", state=CallState.ENDED)

    async def transfer(self, call_id: str, wish: TransferWish, *, wait: bool = False) -> CallRecord:
        self.wish, self.waits = wish, wait
        return await self._do(call_id, "transfer", wish.to, **self.changes)

    async def switch_room(self, call_id: str, room: str) -> CallRecord:
        return await self._do(call_id, "switch", room, room=room)


class ResumeUrls:
    async def of(self, record: CallRecord) -> str:
        return "" if record.end_reason else f"{PUBLIC}/{record.provider.value}/{record.call_id}/resume"


def operations(store: Store, control: Control) -> list[Operation]:
    origins = Origins(PUBLIC, {}, {})
    signatures = SignatureCheck(origins, CARRIERS, ACCOUNTS)
    return [
        *ConnectorRest(store, WebhookKeys(SECRET), origins, CARRIERS, signatures, RuleRest(store, {KEY})).operations(),
        *RuleRest(store, KEY).operations(),
        *CallRest(control, store, ResumeUrls()).operations(),
    ]


class Rest:
    """A client with a token. Each call answers (status, JSON)."""

    def __init__(self, client: TestClient[web.Request, web.Application], store: Store, control: Control) -> None:
        self.client = client
        self.store = store
        self.control = control

    @cached_property
    def document(self) -> dict[str, Any]:
        """Made for the tests that look at it: it takes a quarter of a second."""
        return document(operations(self.store, self.control))

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        options.setdefault("headers", {"Authorization": TOKEN})
        if body is not None:
            options["json"] = body
        async with self.client.request(method, path, **options) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        status, answer = await self(method, path, body, **options)
        assert status in (200, 201), answer
        return answer


@asynccontextmanager
async def rest_api() -> AsyncIterator[Rest]:
    async with empty_store() as store:
        control = Control(store)
        application = web.Application(client_max_size=256 * 1024)
        RestRoutes(operations(store, control), Authorizer(KEY, SECRET), Refusals(Metrics())).add_to(application.router)
        async with TestClient(TestServer(application)) as client:
            yield Rest(client, store, control)
