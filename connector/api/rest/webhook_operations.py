"""`/v2/sip/webhooks`: endpoints for events of calls, their delivery log, and the signing key. JSON shapes as in
VideoSDK's SDKs: an endpoint has no envelope object."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import structlog
from pydantic import Field, StringConstraints

from connector.api.rest.edits import edited
from connector.api.rest.models import Answer, Asked, Body, Message, PageInfo, PageQuery, Query, Text, page_info
from connector.api.rest.operation import Access, Operation
from connector.errors import NotFound, ResourceExhausted
from connector.model.webhook import Attempt, LifecycleEvent, WebhookEndpoint
from connector.storage.base import EVERY_DOCUMENT, DocumentFilter, Store
from connector.times import iso_utc
from connector.webhooks.blocked_addresses import MAX_URL_LENGTH, check_public, check_url
from connector.webhooks.signing import KeyRing, PublicKey

log = structlog.get_logger()

MAX_ENDPOINTS = 100
"""A limit is needed because each event is stored once per endpoint."""
MAX_LOG_LINES = 1000
_ID_CHARACTERS = string.digits + string.ascii_lowercase
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]
Events = Annotated[list[LifecycleEvent], Field(min_length=1, max_length=64)]


class NewWebhook(Body):
    url: Url = Field(description="An absolute http or https URL, without a user or password in it")
    events: Events = Field(description="The events to deliver")


class WebhookChange(Body):
    """What is left out stays."""

    url: Url | None = None
    events: Events | None = None


class WebhookAnswer(Answer):
    id: str
    url: str
    events: list[LifecycleEvent]
    created_at: str
    updated_at: str


class WebhookList(Answer):
    data: list[WebhookAnswer]
    page_info: PageInfo


class WebhookQuery(PageQuery):
    search: Text | None = Field(None, description="Part of a URL")


class DeliveryQuery(Query):
    call_id: Text | None = None
    limit: int = Field(50, ge=1, le=MAX_LOG_LINES)


class DeliveryAnswer(Answer):
    """One attempt."""

    delivery_id: str = Field(description="The same for every attempt; also in the body and in a header")
    webhook_id: str
    call_id: str
    event: LifecycleEvent
    attempt: int
    at: str
    seconds: float
    status: int | None = Field(description="The HTTP status; null when no answer came")
    error: str | None = Field(description="Null when it was delivered")


class DeliveryList(Answer):
    data: list[DeliveryAnswer]


class KeyAnswer(Answer):
    id: str
    public_key: str
    created_at: str
    retired_at: str | None


class PublicKeyAnswer(Answer):
    public_key: str = Field(description="PEM of the key whose signature is in `videosdk-signature`")
    keys: list[KeyAnswer] = Field(
        description="The current key, then the previous one while deliveries are signed with both"
    )


class WebhookRest:
    """The operations on endpoints."""

    def __init__(self, store: Store, keys: KeyRing, *, allow_private: bool) -> None:
        self._store = store
        self._keys = keys
        self._allow_private = allow_private

    def operations(self) -> Sequence[Operation]:
        path, one = "/v2/sip/webhooks", "/v2/sip/webhooks/{id}"
        return (
            Operation(
                "POST",
                path,
                "Register a webhook",
                self.create,
                WebhookAnswer,
                201,
                NewWebhook,
                refusals=(429,),
                gives="/id",
            ),
            Operation("GET", path, "List the webhooks, newest first", self.list, WebhookList, query=WebhookQuery),
            Operation("GET", one, "Get a webhook", self.get, WebhookAnswer, refusals=(404,)),
            Operation(
                "PATCH", one, "Change a webhook", self.update, WebhookAnswer, body=WebhookChange, refusals=(404, 409)
            ),
            Operation(
                "DELETE",
                one,
                "Delete a webhook",
                self.delete,
                Message,
                refusals=(404,),
                description="Its pending deliveries are dropped.",
            ),
            Operation(
                "GET",
                f"{one}/deliveries",
                "Attempts to deliver, newest first",
                self.deliveries,
                DeliveryList,
                query=DeliveryQuery,
                refusals=(404,),
            ),
            Operation(
                "GET",
                f"{path}/deliveries",
                "Attempts to deliver to any webhook, newest first",
                self.all_deliveries,
                DeliveryList,
                query=DeliveryQuery,
            ),
            Operation(
                "GET",
                "/v2/public/rsa-public-key",
                "The key that signs deliveries",
                self.public_key,
                PublicKeyAnswer,
                access=Access.OPEN,
            ),
        )

    async def create(self, asked: Asked[NewWebhook, Any]) -> WebhookAnswer:
        self._check(asked.body.url)
        if (await self._store.endpoints.page(0, 1)).total >= MAX_ENDPOINTS:
            raise ResourceExhausted(f"there are {MAX_ENDPOINTS} webhooks already")
        now = time.time()
        endpoint = WebhookEndpoint(
            id="wh_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(16)),
            url=asked.body.url,
            events=_once_each(asked.body.events),
            created_at=now,
            updated_at=now,
        )
        await self._store.endpoints.insert(endpoint)
        log.info("webhook registered", endpoint=endpoint.id, events=[event.value for event in endpoint.events])
        return _shown(endpoint)

    async def list(self, asked: Asked[Any, WebhookQuery]) -> WebhookList:
        query = asked.query
        where = DocumentFilter(texts=(query.search,)) if query.search else EVERY_DOCUMENT
        page = await self._store.endpoints.page(query.offset, query.per_page, where)
        return WebhookList(data=[_shown(one) for one in page.items], page_info=page_info(query, page.total))

    async def get(self, asked: Asked[Any, Any]) -> WebhookAnswer:
        return _shown(await self._found(asked.path["id"]))

    async def update(self, asked: Asked[WebhookChange, Any]) -> WebhookAnswer:
        wanted = asked.body
        if wanted.url is not None:
            self._check(wanted.url)

        def change(endpoint: WebhookEndpoint) -> WebhookEndpoint:
            return replace(
                endpoint,
                url=wanted.url or endpoint.url,
                events=_once_each(wanted.events) if wanted.events else endpoint.events,
                updated_at=time.time(),
            )

        endpoint = await edited(self._store.endpoints, asked.path["id"], change, _unknown())
        log.info("webhook changed", endpoint=endpoint.id, events=[event.value for event in endpoint.events])
        return _shown(endpoint)

    async def delete(self, asked: Asked[Any, Any]) -> Message:
        endpoint_id = asked.path["id"]
        if not await self._store.endpoints.delete(endpoint_id):
            raise _unknown()
        dropped = await self._store.deliveries.drop_endpoint(endpoint_id)
        log.info("webhook deleted", endpoint=endpoint_id, undelivered=dropped)
        return Message(message="Webhook deleted successfully")

    async def deliveries(self, asked: Asked[Any, DeliveryQuery]) -> DeliveryList:
        return await self._log(asked.query, (await self._found(asked.path["id"])).id)

    async def all_deliveries(self, asked: Asked[Any, DeliveryQuery]) -> DeliveryList:
        return await self._log(asked.query, "")

    async def _log(self, query: DeliveryQuery, endpoint_id: str) -> DeliveryList:
        attempts = await self._store.deliveries.attempts(query.limit, endpoint_id, query.call_id or "")
        return DeliveryList(data=[_line(attempt) for attempt in attempts])

    async def public_key(self, _: Asked[Any, Any]) -> PublicKeyAnswer:
        keys = await self._keys.published()
        return PublicKeyAnswer(public_key=keys[0].pem, keys=[_key(key) for key in keys])

    def _check(self, url: str) -> None:
        check_url(url)
        if not self._allow_private:
            check_public(url)

    async def _found(self, endpoint_id: str) -> WebhookEndpoint:
        endpoint = await self._store.endpoints.get(endpoint_id)
        if endpoint is None:
            raise _unknown()
        return endpoint


def _once_each(events: Sequence[LifecycleEvent]) -> tuple[LifecycleEvent, ...]:
    return tuple(dict.fromkeys(events))


def _shown(endpoint: WebhookEndpoint) -> WebhookAnswer:
    return WebhookAnswer(
        id=endpoint.id,
        url=endpoint.url,
        events=list(endpoint.events),
        created_at=iso_utc(endpoint.created_at),
        updated_at=iso_utc(endpoint.updated_at),
    )


def _line(attempt: Attempt) -> DeliveryAnswer:
    return DeliveryAnswer(
        delivery_id=attempt.delivery_id,
        webhook_id=attempt.endpoint_id,
        call_id=attempt.call_id,
        event=attempt.event,
        attempt=attempt.number,
        at=iso_utc(attempt.at),
        seconds=attempt.seconds,
        status=attempt.status or None,
        error=attempt.error or None,
    )


def _key(key: PublicKey) -> KeyAnswer:
    return KeyAnswer(
        id=key.id,
        public_key=key.pem,
        created_at=iso_utc(key.created_at),
        retired_at=iso_utc(key.retired_at) if key.retired_at else None,
    )


def _unknown() -> NotFound:
    return NotFound("Webhook not found")
