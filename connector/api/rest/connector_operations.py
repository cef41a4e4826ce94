"""`/v2/connectors`: each connector is one webhook URL for one carrier. JSON shapes as in VideoSDK's documentation."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from pydantic import Field

from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.api.rest.edits import edited
from connector.api.rest.models import (
    MAX_PER_PAGE,
    Answer,
    Asked,
    Body,
    Message,
    Name,
    PageInfo,
    PageQuery,
    Text,
    page_info,
)
from connector.api.rest.operation import Operation
from connector.api.rest.rule_models import NewRule, RoomBody
from connector.api.rest.rule_operations import RuleRest
from connector.carriers.carrier import Carriers
from connector.errors import FailedPrecondition, InvalidArgument, NotFound
from connector.model.connector import ConnectorEntry, ConnectorMode
from connector.model.provider import Provider
from connector.model.rule import RuleType
from connector.seal import is_sealed
from connector.storage.base import Store
from connector.times import iso_utc
from connector.tokens import WebhookKeys

log = structlog.get_logger()

_ID_CHARACTERS = string.digits + string.ascii_lowercase


class NewConnector(Body):
    provider: Provider = Field(description="The telephony carrier")
    name: Text | None = Field(None, description="A label")
    default_room_id: Name | None = Field(
        None,
        description="One room for all calls that no routing rule matches: their callers share it and hear each other",
    )
    default_rule_id: Name | None = Field(None, description="The routing rule of calls whose number no rule has")
    agent_id: Name | None = Field(
        None,
        description="The agent to dispatch, LiveKit's agent name. Creates the connector's default rule: each call "
        "gets its own room with this agent",
    )
    agent_metadata: dict[str, Any] | str | None = Field(None, description="Metadata for that agent, as JSON")
    room: RoomBody | None = Field(None, description="The room of that rule; same fields as in a routing rule")
    region: Name | None = Field(
        None, description="One of the configured regions; without it the caller's country decides"
    )
    mode: ConnectorMode | None = Field(
        None, description="`stream` (the default): audio over a WebSocket; `sip`: the carrier dials LiveKit SIP"
    )


class ConnectorData(Answer):
    id: str
    provider: Provider
    name: str | None
    webhook_url: str = Field(
        description="Enter it in the carrier's console. It contains a secret: treat it like a password"
    )
    default_room_id: str | None
    default_rule_id: str | None
    region: str | None
    mode: ConnectorMode
    created_at: str


class ConnectorAnswer(Answer):
    data: ConnectorData


class ConnectorChanged(Answer):
    message: str
    data: ConnectorData


class ConnectorList(Answer):
    data: list[ConnectorData]
    page_info: PageInfo


class ConnectorQuery(PageQuery):
    per_page: int = Field(MAX_PER_PAGE, ge=1, le=MAX_PER_PAGE)


class ConnectorRest:
    """The operations on connectors."""

    def __init__(
        self,
        store: Store,
        keys: WebhookKeys,
        origins: Origins,
        carriers: Carriers,
        signatures: SignatureCheck,
        rules: RuleRest,
    ) -> None:
        self._store = store
        self._carriers = carriers
        self._signatures = signatures
        self._keys = keys
        self._rules = rules
        self._origins = origins

    def operations(self) -> Sequence[Operation]:
        path, one = "/v2/connectors", "/v2/connectors/{id}"
        return (
            Operation(
                "POST", path, "Create a connector", self.create, ConnectorChanged, 201, NewConnector, gives="/data/id"
            ),
            Operation("GET", path, "List the connectors, newest first", self.list, ConnectorList, query=ConnectorQuery),
            Operation("GET", one, "Get a connector", self.get, ConnectorAnswer, refusals=(404,)),
            Operation(
                "POST",
                f"{one}/rotate-key",
                "Give a connector a new webhook URL",
                self.rotate_key,
                ConnectorChanged,
                refusals=(404, 409),
                description="The old URL stops working at once, on every process.",
            ),
            Operation("DELETE", one, "Delete a connector", self.delete, Message, refusals=(404,)),
        )

    async def create(self, asked: Asked[NewConnector, Any]) -> ConnectorChanged:
        wanted = asked.body
        if wanted.mode is ConnectorMode.SIP and not self._carriers[wanted.provider].dials_sip:
            able = " or ".join(name.value for name, carrier in self._carriers.items() if carrier.dials_sip)
            raise InvalidArgument("mode", f"sip is available for provider {able} only")
        try:
            self._signatures.require_checkable(wanted.provider)
        except FailedPrecondition as error:
            raise InvalidArgument("provider", error.message) from None
        rule_id = await self._rule_of(wanted)
        entry = self._keyed(
            ConnectorEntry(
                id="cn_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(16)),
                provider=wanted.provider,
                key_hash="",
                key_nonce="",
                created_at=time.time(),
                name=wanted.name,
                default_room_id=wanted.default_room_id,
                default_rule_id=rule_id or wanted.default_rule_id,
                region=wanted.region,
                mode=wanted.mode or ConnectorMode.STREAM,
            )
        )
        try:
            await self._store.connectors.insert(entry)
        except BaseException:
            if rule_id:
                await self._store.rules.delete(rule_id)
            raise
        log.info("connector created", connector=entry.id, provider=entry.provider.value)
        await self._warn(entry)
        return ConnectorChanged(message="Connector created successfully", data=self._shown(entry))

    async def _rule_of(self, wanted: NewConnector) -> str:
        """Creates the default rule of the request. Returns its id, or "" if the request has no rule."""
        if wanted.agent_id is None and wanted.room is None:
            if wanted.agent_metadata is not None:
                raise InvalidArgument("agentMetadata", "needs agentId: it is that agent's metadata")
            return ""
        given = "agentId" if wanted.agent_id is not None else "room"
        if wanted.default_rule_id is not None:
            raise InvalidArgument(given, "creates the default rule; it cannot be combined with defaultRuleId")
        if wanted.default_room_id is not None:
            raise InvalidArgument(given, "creates the default rule; use `room` instead of defaultRoomId")
        rule = NewRule.model_validate(
            {
                "name": (f"Calls of {wanted.name}" if wanted.name else f"Calls by {wanted.provider.value}")[:256],
                "type": RuleType.INBOUND,
                "agentId": wanted.agent_id,
                "agentMetadata": wanted.agent_metadata,
                "room": wanted.room,
            }
        )
        return (await self._rules.create(Asked({}, rule, None))).id

    async def _warn(self, entry: ConnectorEntry) -> None:
        """Warns about an unknown rule or region. This is no error: the rule or the region may be added later."""
        if entry.default_rule_id and await self._store.rules.get(entry.default_rule_id) is None:
            log.warning("the connector's default rule does not exist", connector=entry.id, rule=entry.default_rule_id)
        if entry.region:
            self._origins.region(entry.region, "")

    async def list(self, asked: Asked[Any, ConnectorQuery]) -> ConnectorList:
        query = asked.query
        page = await self._store.connectors.page(query.offset, query.per_page)
        data = [self._shown(await self._found_by(entry)) for entry in page.items]
        return ConnectorList(data=data, page_info=page_info(query, page.total))

    async def get(self, asked: Asked[Any, Any]) -> ConnectorAnswer:
        return ConnectorAnswer(data=self._shown(await self._found_by(await self._found(asked.path["id"]))))

    async def rotate_key(self, asked: Asked[Any, Any]) -> ConnectorChanged:
        entry = await edited(self._store.connectors, asked.path["id"], self._keyed, _unknown())
        log.info("webhook key rotated", connector=entry.id)
        return ConnectorChanged(message="Webhook key rotated successfully", data=self._shown(entry))

    async def delete(self, asked: Asked[Any, Any]) -> Message:
        if not await self._store.connectors.delete(asked.path["id"]):
            raise _unknown()
        log.info("connector deleted", connector=asked.path["id"])
        return Message(message="Connector deleted successfully")

    def _keyed(self, entry: ConnectorEntry) -> ConnectorEntry:
        """Returns the connector with a new key."""
        nonce = secrets.token_hex(16)
        return replace(entry, key_nonce=nonce, key_hash=WebhookKeys.hash(self._keys.derive(entry.id, nonce)))

    async def _found(self, connector_id: str) -> ConnectorEntry:
        entry = await self._store.connectors.get(connector_id)
        if entry is None:
            raise _unknown()
        return entry

    async def _found_by(self, entry: ConnectorEntry) -> ConnectorEntry:
        """Returns the connector with a usable URL. If the secret was changed and the previous secret is not configured,
        the old key cannot be recovered: the old URL is refused from then on, and the connector gets a new key, valid
        from the first time that its URL is shown."""
        if self._keys.key_of(entry) is not None:
            return entry
        if is_sealed(entry.key_nonce):
            fresh = self._keyed(entry)
        else:
            fresh = replace(entry, key_hash=WebhookKeys.hash(self._keys.derive(entry.id, entry.key_nonce)))
        if await self._store.connectors.replace(fresh, entry):
            log.warning("the secret has changed: the connector has a new webhook URL", connector=entry.id)
            return fresh
        # Another request changed the connector first: it made a new key too.
        return await self._store.connectors.get(entry.id) or fresh

    def _shown(self, entry: ConnectorEntry) -> ConnectorData:
        key = self._keys.key_of(entry)
        return ConnectorData(
            id=entry.id,
            provider=entry.provider,
            name=entry.name,
            webhook_url=f"{self._origins.default}/v2/hooks/{entry.provider.value}/{key}",
            default_room_id=entry.default_room_id,
            default_rule_id=entry.default_rule_id,
            region=entry.region,
            mode=entry.mode,
            created_at=iso_utc(entry.created_at),
        )


def _unknown() -> NotFound:
    return NotFound("Connector not found")
