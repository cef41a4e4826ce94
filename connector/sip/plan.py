"""Computes the wanted LiveKit configuration of a number, as LiveKit's messages, and its differences. Pure.

Field names and forms are those of https://docs.livekit.io/sip/accepting-calls-twilio-voice/ and of
livekit_sip.proto; both messages are what `lk sip inbound create` and `lk sip dispatch create` read as JSON.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from livekit import api

_OURS = "connector "
DEFAULT_PREFIX = "call-"
DEFAULT_USERNAME = "connector"
PASSWORD_BYTES = 24
"""192 bits: cannot be guessed over the network. The text has 32 characters that need no escaping in XML or SIP."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of an operator. None keeps LiveKit's current value, or uses the default if there is none."""

    number: str
    """E.164."""
    room_prefix: str | None = None
    agents: tuple[str, ...] | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RoomForCall:
    """One call, with the numbers that LiveKit SIP will see, and the room that it must join."""

    call_id: str
    trunk_id: str
    number: str
    caller_id: str
    """The user part of the From address."""
    room: str
    attributes: Mapping[str, str]


def new_password() -> str:
    return secrets.token_urlsafe(PASSWORD_BYTES)


def name_of(number: str) -> str:
    """The name of both trunk and rule; in LiveKit's lists it shows that this service created them."""
    return f"{_OURS}{number}"


def find_trunk(trunks: Sequence[api.SIPInboundTrunkInfo], number: str) -> api.SIPInboundTrunkInfo | None:
    """Returns the trunk that accepts calls to this number, else the trunk with our name for it."""
    for trunk in trunks:
        if any(same_number(each, number) for each in trunk.numbers):
            return trunk
    return next((trunk for trunk in trunks if trunk.name == name_of(number)), None)


def same_number(one: str, other: str) -> bool:
    """Compares numbers as LiveKit does for a trunk: formatting and a missing plus are ignored."""
    return _digits(one) == _digits(other) != ""


def _digits(number: str) -> str:
    return "".join(char for char in number if char.isdigit())


def find_rule(rules: Sequence[api.SIPDispatchRuleInfo], number: str, trunk_id: str) -> api.SIPDispatchRuleInfo | None:
    """Returns our rule for the number, found by its name, else an individual rule that serves only this trunk."""
    for rule in rules:
        if rule.name == name_of(number):
            return rule
    return next((rule for rule in rules if _serves_only(rule, trunk_id)), None)


def _serves_only(rule: api.SIPDispatchRuleInfo, trunk_id: str) -> bool:
    """Excludes rules with a PIN or for certain numbers: these are special cases of the operator."""
    individual = rule.rule.HasField("dispatch_rule_individual") and not rule.rule.dispatch_rule_individual.pin
    return bool(trunk_id) and list(rule.trunk_ids) == [trunk_id] and individual and not rule.inbound_numbers


def trunk_for(wanted: Wanted, existing: api.SIPInboundTrunkInfo | None) -> api.SIPInboundTrunkInfo:
    """Returns `existing` with the wanted changes, or a new trunk. All other settings stay unchanged."""
    trunk = api.SIPInboundTrunkInfo()
    if existing is not None:
        trunk.CopyFrom(existing)
    trunk.name = trunk.name or name_of(wanted.number)
    if not any(same_number(each, wanted.number) for each in trunk.numbers):
        trunk.numbers.append(wanted.number)
    trunk.auth_username = wanted.username or trunk.auth_username or DEFAULT_USERNAME
    trunk.auth_password = wanted.password or trunk.auth_password or new_password()
    return trunk


def rule_for(wanted: Wanted, existing: api.SIPDispatchRuleInfo | None, trunk_id: str) -> api.SIPDispatchRuleInfo:
    """As `trunk_for`. With an empty `trunk_id`, the rule has no trunks and so serves all of them."""
    rule = api.SIPDispatchRuleInfo()
    if existing is not None:
        rule.CopyFrom(existing)
    rule.name = rule.name or name_of(wanted.number)
    individual = rule.rule.dispatch_rule_individual
    if wanted.room_prefix is not None or existing is None:
        individual.room_prefix = DEFAULT_PREFIX if wanted.room_prefix is None else wanted.room_prefix
    if trunk_id and trunk_id not in rule.trunk_ids:
        rule.trunk_ids.append(trunk_id)
    if wanted.agents is not None and [agent.agent_name for agent in rule.room_config.agents] != list(wanted.agents):
        del rule.room_config.agents[:]
        rule.room_config.agents.extend(api.RoomAgentDispatch(agent_name=name) for name in wanted.agents)
    return rule


def rule_of_call(call: RoomForCall) -> api.SIPDispatchRuleInfo:
    """Makes the rule for one call. LiveKit prefers a rule with the called and the caller's number to one without."""
    return api.SIPDispatchRuleInfo(
        name=name_of(call.call_id),
        trunk_ids=[call.trunk_id],
        numbers=[call.number],
        inbound_numbers=[call.caller_id],
        rule=api.SIPDispatchRule(dispatch_rule_direct=api.SIPDispatchRuleDirect(room_name=call.room)),
        attributes=dict(call.attributes),
    )


def call_of(rule: api.SIPDispatchRuleInfo) -> str:
    """Returns the call id of a `rule_of_call`; empty for any other rule."""
    name = rule.name.removeprefix(_OURS)
    return name if rule.name.startswith(_OURS) and rule.rule.HasField("dispatch_rule_direct") else ""


def changed_fields(old: Message, new: Message) -> list[str]:
    """Returns the names of the top-level fields that differ; fields that LiveKit sets itself are ignored."""
    ours = [f.name for f in new.DESCRIPTOR.fields if f.name not in ("created_at", "updated_at")]
    return [name for name in ours if getattr(old, name) != getattr(new, name)]


def inbound_trunk_json(trunk: api.SIPInboundTrunkInfo) -> str:
    """The text of `inbound-trunk.json`, as LiveKit's page has it: `lk sip inbound create` reads it."""
    return json.dumps({"trunk": _fields(trunk)}, indent=2)


def dispatch_rule_json(rule: api.SIPDispatchRuleInfo) -> str:
    """The text of `dispatch-rule.json`, as LiveKit's page has it: `lk sip dispatch create` reads it."""
    # On LiveKit's page the inner names are in camel case, the outer ones are not; protobuf's JSON accepts both.
    return json.dumps({"dispatch_rule": _fields(rule) | {"rule": json_format.MessageToDict(rule.rule)}}, indent=2)


def _fields(message: Message) -> dict[str, Any]:
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))
