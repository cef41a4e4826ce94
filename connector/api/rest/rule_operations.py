"""`/v2/sip/routing-rule`: the operations on routing rules."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Sequence
from typing import Any

import structlog

from connector.api.rest.edits import edited
from connector.api.rest.models import Asked, Message, listed, page_info
from connector.api.rest.operation import Operation
from connector.api.rest.rule_changes import merged
from connector.api.rest.rule_models import NewRule, RoomAnswer, RuleAnswer, RuleChange, RuleList, RuleQuery
from connector.errors import InvalidArgument, NotFound
from connector.model.rule import RoomType, RoutingRule, RuleType
from connector.routing import claimed_twice, normal_number
from connector.seal import is_sealed
from connector.storage.base import DocumentFilter, NameTaken, Store
from connector.times import iso_utc

log = structlog.get_logger()


class NumberClaimed(NameTaken):
    """Another rule has one of this rule's numbers; the message names the number and the rule for the user."""

    def __init__(self, number: str, text: str) -> None:
        super().__init__(number)
        self.message = text


class RuleRest:
    """The operations on routing rules."""

    def __init__(self, store: Store, api_keys: Collection[str]) -> None:
        self._store = store
        self._api_keys = api_keys

    def operations(self) -> Sequence[Operation]:
        path, one = "/v2/sip/routing-rule", "/v2/sip/routing-rule/{id}"
        return (
            Operation(
                "POST", path, "Create a rule", self.create, RuleAnswer, 201, NewRule, refusals=(409,), gives="/id"
            ),
            Operation("GET", path, "List the rules, newest first", self.list, RuleList, query=RuleQuery),
            Operation("GET", one, "Get a rule", self.get, RuleAnswer, refusals=(404,)),
            Operation("PATCH", one, "Change a rule", self.update, RuleAnswer, body=RuleChange, refusals=(404, 409)),
            Operation("DELETE", one, "Delete a rule", self.delete, Message, refusals=(404,)),
        )

    async def create(self, asked: Asked[NewRule, Any]) -> RuleAnswer:
        now = time.time()
        await self._check_diversion(asked.body, "")
        blank = RoutingRule("rule_" + secrets.token_hex(8), asked.body.name, asked.body.type, now, now)
        rule = merged(blank, asked.body, self._api_keys, now)
        try:
            await self._store.rules.insert(rule)
        except NameTaken as error:
            raise await self._claimed(rule, error) from error
        log.info("routing rule created", rule=rule.id, type=rule.type.value, numbers=len(rule.numbers))
        return _shown(rule)

    async def list(self, asked: Asked[Any, RuleQuery]) -> RuleList:
        query = asked.query
        page = await self._store.rules.page(query.offset, query.per_page, _filter(query))
        return RuleList(data=[_shown(rule) for rule in page.items], page_info=page_info(query, page.total))

    async def get(self, asked: Asked[Any, Any]) -> RuleAnswer:
        return _shown(await self._found(asked.path["id"]))

    async def update(self, asked: Asked[RuleChange, Any]) -> RuleAnswer:
        def change(rule: RoutingRule) -> RoutingRule:
            return merged(rule, asked.body, self._api_keys, time.time())

        rule_id = asked.path["id"]
        await self._check_diversion(asked.body, rule_id)
        try:
            rule = await edited(self._store.rules, rule_id, change, _unknown())
        except NameTaken as error:
            raise await self._claimed(change(await self._found(rule_id)), error) from error
        log.info("routing rule changed", rule=rule.id)
        return _shown(rule)

    async def delete(self, asked: Asked[Any, Any]) -> Message:
        if not await self._store.rules.delete(asked.path["id"]):
            raise _unknown()
        log.info("routing rule deleted", rule=asked.path["id"])
        return Message(message="Routing rule deleted successfully")

    async def _check_diversion(self, change: NewRule | RuleChange, rule_id: str) -> None:
        if not change.divert_rule_id:
            return
        other = await self._store.rules.get(change.divert_rule_id)
        if other is None or other.type is not RuleType.INBOUND or other.id == rule_id:
            raise InvalidArgument("divertRuleId", "must be the id of another inbound rule")

    async def _found(self, rule_id: str) -> RoutingRule:
        rule = await self._store.rules.get(rule_id)
        if rule is None:
            raise _unknown()
        return rule

    async def _claimed(self, rule: RoutingRule, error: NameTaken) -> NumberClaimed:
        """Makes the error with the number and the rule that has it. That rule may be deleted before it is read."""
        found = claimed_twice(await self._store.rules.list(), rule)
        if found is None:
            number = error.name.partition(":")[2]
            return NumberClaimed(number, f"{number} belongs to another {rule.type.value} rule")
        number, other = found
        text = f"{number} belongs to another {rule.type.value} rule already: {other.name} ({other.id})"
        return NumberClaimed(number, text)


def _read(metadata: str) -> dict[str, Any] | str | None:
    """Returns the metadata as the client sent it: an object if the text is a JSON object, else the text."""
    try:
        value = json.loads(metadata)
    except ValueError:
        return metadata or None
    return value if isinstance(value, dict) else metadata


def _filter(query: RuleQuery) -> DocumentFilter:
    """Converts the query. The search text is a substring of the name, or of a number in any notation."""
    wanted = query.search or ""
    texts = {wanted, normal_number(wanted).removeprefix("+")} if any(map(str.isdigit, wanted)) else {wanted}
    groups = (
        ("type", [query.type.value] if query.type is not None else None),
        ("id", listed(query.rule_ids) if query.rule_ids else None),
        ("room", listed(query.room_type) if query.room_type else None),
    )
    labels = tuple(
        tuple(f"{name}:{value}" for value in sorted(values)) for name, values in groups if values is not None
    )
    return DocumentFilter(labels, tuple(sorted(texts)) if wanted else ())


def _shown(rule: RoutingRule) -> RuleAnswer:
    room = rule.room
    return RuleAnswer(
        id=rule.id,
        name=rule.name,
        type=rule.type,
        numbers=list(rule.numbers),
        phone_numbers=list(rule.numbers),
        room=RoomAnswer(
            type=room.type,
            id=room.id or None,
            prefix=room.prefix if room.type is RoomType.DYNAMIC else None,
            pin=None if is_sealed(room.pin) else room.pin or None,
        )
        if room
        else None,
        agent_id=rule.agent_id or None,
        agent_metadata=_read(rule.agent_metadata),
        hide_phone_number=rule.hide_phone_number,
        dtmf=rule.dtmf,
        recording=rule.recording,
        noise_cancellation=rule.noise_cancellation,
        allowed_numbers=list(rule.allowed_numbers),
        blocked_numbers=list(rule.blocked_numbers),
        block_withheld=rule.block_withheld,
        divert_rule_id=rule.divert_rule_id or None,
        allowed_ip_addresses=list(rule.allowed_ip_addresses),
        tags=list(rule.tags),
        headers=rule.headers,
        headers_to_attributes=rule.headers_to_attributes,
        include_headers=rule.include_headers or None,
        agent_warn_after=rule.watch.warn_after,
        agent_timeout=rule.watch.timeout,
        room_empty_timeout=rule.watch.empty_timeout,
        fallback_agent_id=rule.watch.fallback_agent,
        fallback_number=rule.watch.fallback_number,
        no_agent_message=rule.watch.message,
        created_at=iso_utc(rule.created_at),
        updated_at=iso_utc(rule.updated_at),
    )


def _unknown() -> NotFound:
    return NotFound("Routing rule not found")
