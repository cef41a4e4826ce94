"""Applies a request to a routing rule: omitted fields keep their values, null sets a field to its default."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

from connector.api.rest.rule_models import NewRule, RoomBody, RuleChange
from connector.call.record.call_recorder import OUR_PREFIXES
from connector.errors import InvalidArgument
from connector.model.call import AgentWatch
from connector.model.rule import RoomType, RoutingRule, RuleRoom, RuleType
from connector.routing import normal_number, normal_pattern

T = TypeVar("T")


def merged(rule: RoutingRule, change: NewRule | RuleChange, api_keys: Collection[str], now: float) -> RoutingRule:
    """Returns the rule with the changes of the request. Raises InvalidArgument for fields that contradict."""
    _check(rule.type, change, api_keys)
    given = change.model_fields_set

    def taken(field: str, now: T, asked: T | None, default: T) -> T:
        return now if field not in given else default if asked is None else asked

    return replace(
        rule,
        updated_at=now,
        name=change.name or rule.name,
        numbers=taken("phone_numbers", rule.numbers, _numbers(change.phone_numbers), ()),
        room=_room(change.room, rule.room) if "room" in given else rule.room,
        agent_id=taken("agent_id", rule.agent_id, change.agent_id, ""),
        agent_metadata=taken("agent_metadata", rule.agent_metadata, _written(change.agent_metadata), ""),
        allowed_numbers=taken("allowed_numbers", rule.allowed_numbers, _numbers(change.allowed_numbers), ()),
        blocked_numbers=taken("blocked_numbers", rule.blocked_numbers, _patterns(change.blocked_numbers), ()),
        block_withheld=taken("block_withheld", rule.block_withheld, change.block_withheld, False),
        divert_rule_id=taken("divert_rule_id", rule.divert_rule_id, change.divert_rule_id, ""),
        allowed_ip_addresses=taken(
            "allowed_ip_addresses", rule.allowed_ip_addresses, tuple(change.allowed_ip_addresses or ()), ()
        ),
        hide_phone_number=taken("hide_phone_number", rule.hide_phone_number, change.hide_phone_number, False),
        dtmf=taken("dtmf", rule.dtmf, change.dtmf, True),
        recording=taken("recording", rule.recording, change.recording, False),
        noise_cancellation=taken("noise_cancellation", rule.noise_cancellation, change.noise_cancellation, False),
        tags=taken("tags", rule.tags, tuple(change.tags or ()), ()),
        headers=taken("headers", rule.headers, change.headers, {}),
        headers_to_attributes=taken(
            "headers_to_attributes", rule.headers_to_attributes, change.headers_to_attributes, {}
        ),
        include_headers=taken("include_headers", rule.include_headers, change.include_headers, ""),
        watch=AgentWatch(
            warn_after=taken("agent_warn_after", rule.watch.warn_after, change.agent_warn_after, None),
            timeout=taken("agent_timeout", rule.watch.timeout, change.agent_timeout, None),
            empty_timeout=taken("room_empty_timeout", rule.watch.empty_timeout, change.room_empty_timeout, None),
            fallback_agent=taken("fallback_agent_id", rule.watch.fallback_agent, change.fallback_agent_id, None),
            fallback_number=taken("fallback_number", rule.watch.fallback_number, change.fallback_number, None),
            message=taken("no_agent_message", rule.watch.message, change.no_agent_message, None),
        ),
    )


def _check(type_: RuleType, change: NewRule | RuleChange, api_keys: Collection[str]) -> None:
    if change.api_key is not None and change.api_key not in api_keys:
        raise InvalidArgument("apiKey", "Invalid API Key")
    if change.type not in (None, type_):
        raise InvalidArgument("type", "cannot be changed")
    if type_ is RuleType.OUTBOUND and change.headers_to_attributes:
        raise InvalidArgument("headersToAttributes", "is for inbound rules only")
    if type_ is RuleType.OUTBOUND and change.include_headers:
        raise InvalidArgument("includeHeaders", "is for inbound rules only")
    for name, value in (
        ("blockedNumbers", change.blocked_numbers),
        ("blockWithheld", change.block_withheld),
        ("divertRuleId", change.divert_rule_id),
    ):
        if type_ is RuleType.OUTBOUND and value:
            raise InvalidArgument(name, "is for inbound rules only")
    if type_ is RuleType.INBOUND and change.headers:
        raise InvalidArgument("headers", "is for outbound rules only")
    if any(name.startswith(OUR_PREFIXES) for name in (change.headers_to_attributes or {}).values()):
        ours = " or ".join(map(repr, OUR_PREFIXES))
        raise InvalidArgument("headersToAttributes", f"attributes that start with {ours} are reserved")


def _numbers(given: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(normal_number(number) for number in given or ()))


def _patterns(given: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(normal_pattern(pattern) for pattern in given or ()))


def _room(body: RoomBody | None, now: RuleRoom | None) -> RuleRoom | None:
    """Returns the room with the changes of the request; `now` is the rule's current room."""
    if body is None:
        return None
    kept = now or RuleRoom(RoomType.DYNAMIC)
    kind = body.type or (RoomType.STATIC if body.id else kept.type)
    pin = (body.pin or "") if "pin" in body.model_fields_set else kept.pin
    if kind is RoomType.STATIC:
        room_id = body.id or kept.id
        if not room_id:
            raise InvalidArgument("room.id", "is required for a static room")
        return RuleRoom(kind, id=room_id, pin=pin)
    return RuleRoom(kind, prefix=body.prefix or kept.prefix, pin=pin)


def _written(metadata: dict[str, Any] | str | None) -> str:
    """Returns the metadata as the string that the agent gets."""
    if metadata is None or isinstance(metadata, str):
        return metadata or ""
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
