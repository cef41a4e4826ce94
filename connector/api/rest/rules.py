"""`/v2/sip/routing-rule`: the routing rules. JSON shapes as in VideoSDK's SDKs: a rule has no envelope object."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

import structlog
from pydantic import AliasChoices, Field, StringConstraints

from connector.api.rest.edits import edited
from connector.api.rest.models import (
    Answer,
    Asked,
    Body,
    Message,
    Name,
    PageInfo,
    PageQuery,
    Text,
    form,
    listed,
    page_info,
)
from connector.api.rest.operation import Operation
from connector.call.record.call_recorder import OUR_PREFIXES
from connector.config import DAY
from connector.errors import InvalidArgument, NotFound
from connector.model.call import AgentWatch
from connector.model.rule import RoomPrefix, RoomType, RoutingRule, RuleRoom, RuleType
from connector.routing import claimed_twice, normal_number, normal_pattern
from connector.seal import is_sealed
from connector.storage.base import DocumentFilter, NameTaken, Store
from connector.times import iso_utc

log = structlog.get_logger()

T = TypeVar("T")
MAX_NUMBERS = 1000
MAX_HEADERS = 64
_NUMBER = form(r"^\+?([ ().-]*[0-9]){3,15}[ ().-]*$", "must be a telephone number such as +15551234567")
Number = Annotated[str, StringConstraints(max_length=40, pattern=_NUMBER)]
"""A telephone number; plus, blanks, dots, dashes and brackets are optional. The minimum of 3 digits allows short
codes."""
_PATTERN = form(
    r"^\+?([ ().-]*[0-9]){1,15}[ ().-]*\*?$",
    "must be a telephone number, or the first digits of numbers and * such as +1900*",
)
Pattern = Annotated[str, StringConstraints(max_length=40, pattern=_PATTERN)]
"""A number as above, or a number prefix followed by `*`."""
Pin = Annotated[str, StringConstraints(pattern=form(r"^[0-9]{1,16}$", "must be 1 to 16 digits"))]
_ADDRESS = form(r"^[0-9A-Fa-f:./]+$", "must be an IP address, or a network such as 192.0.2.0/24")
Address = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_ADDRESS)]
Headers = Annotated[dict[Name, Text], Field(max_length=MAX_HEADERS)]
Attributes = Annotated[dict[Name, Name], Field(max_length=MAX_HEADERS)]
WatchSeconds = Annotated[float, Field(ge=0, le=DAY)]
_WHOLE_NUMBER = form(r"^(\+[1-9][0-9]{6,14})?$", "must be a number in E.164 form such as +15551234567, or empty")
WholeNumber = Annotated[str, StringConstraints(max_length=16, pattern=_WHOLE_NUMBER)]
"""E.164, or an empty string."""
_ROOM_TYPES = form(r"^(static|dynamic)(,(static|dynamic))?$", "must be static, dynamic, or both with a comma between")
Sentence = Annotated[str, StringConstraints(max_length=4096)]
IncludeHeaders = Literal["ALL", "SIP_X_HEADERS", "NONE"]


class NumberClaimed(NameTaken):
    """Another rule has one of this rule's numbers; the message names the number and the rule for the user."""

    def __init__(self, number: str, text: str) -> None:
        super().__init__(number)
        self.message = text


class RoomBody(Body):
    type: RoomType | None = Field(
        None, description="`static` (the default with an `id`): one room; `dynamic`: a room for each call"
    )
    id: Name | None = Field(None, description="The static room")
    prefix: RoomPrefix | None = Field(None, description="How a dynamic room's name begins")
    pin: Pin | None = Field(None, description="Digits that a caller must press before joining; three tries")


class _RuleFields(Body):
    phone_numbers: Annotated[list[Number], Field(max_length=MAX_NUMBERS)] | None = Field(
        None,
        validation_alias=AliasChoices("phoneNumbers", "numbers"),
        description="The called numbers that the rule takes; `numbers`, as they come back, is taken as well. No two "
        "inbound rules may have the same",
    )
    room: RoomBody | None = Field(None, description="Where calls go; without it, each to a room of its own")
    agent_id: Text | None = Field(None, description="The agent to dispatch: LiveKit's agent name")
    agent_metadata: dict[str, Any] | str | None = Field(None, description="What the agent is told, as JSON")
    allowed_numbers: Annotated[list[Number], Field(max_length=MAX_NUMBERS)] | None = Field(
        None, description="The callers that may use the rule; without it, all"
    )
    blocked_numbers: Annotated[list[Pattern], Field(max_length=MAX_NUMBERS)] | None = Field(
        None,
        description="Inbound rules only: callers whom the rule does not take, numbers or beginnings such as `+1900*`. "
        "They are rejected before the answer, or diverted",
    )
    block_withheld: bool | None = Field(
        None, description="Inbound rules only: the same for callers who withhold their number"
    )
    divert_rule_id: Text | None = Field(
        None, description="Inbound rules only: the rule that takes the blocked callers; without it they are rejected"
    )
    allowed_ip_addresses: Annotated[list[Address], Field(max_length=MAX_NUMBERS)] | None = Field(
        None, description="For calls over SIP. A call over a stream comes from its carrier's address: no effect there"
    )
    hide_phone_number: bool | None = Field(None, description="The caller's number is then to be seen nowhere")
    dtmf: bool | None = Field(None, description="Whether digits pass; true by default")
    recording: bool | None = Field(None, description="Kept, without effect: record with LiveKit's egress")
    noise_cancellation: bool | None = Field(None, description="Kept, without effect: a feature of the agent")
    agent_warn_after: WatchSeconds | None = Field(
        None, description="Seconds without an agent until it is dispatched again; 0: never. Without it, the setting"
    )
    agent_timeout: WatchSeconds | None = Field(
        None,
        description="Seconds that nobody talks with the caller until the call ends; 0: never. Without it: the setting",
    )
    room_empty_timeout: WatchSeconds | None = Field(
        None,
        description="Seconds until the call ends after the last agent or person has left; 0: never. Without it, the "
        "setting",
    )
    fallback_agent_id: Text | None = Field(None, description="The agent to try before a call ends without one")
    fallback_number: WholeNumber | None = Field(
        None, description="The number to transfer the phone to before a call ends without an agent; empty: none"
    )
    no_agent_message: Sentence | None = Field(
        None, description="What the phone hears before a call ends without an agent; empty: nothing"
    )
    tags: Annotated[list[Text], Field(max_length=100)] | None = None
    headers: Headers | None = Field(None, description="Outbound rules only. Kept, without effect")
    headers_to_attributes: Attributes | None = Field(
        None,
        description="Inbound rules only: name of a SIP header of the call, or of a stream parameter, to the name of "
        "the attribute that it becomes",
    )
    include_headers: IncludeHeaders | None = Field(None, description="Inbound rules only. Kept, without effect")
    api_key: Text | None = Field(None, description="If it is given, it must be one of the connector's own")


class NewRule(_RuleFields):
    name: Name
    type: RuleType = Field(description="Cannot be changed later")


class RuleChange(_RuleFields):
    """What is left out stays; null sets a field back to its default."""

    name: Name | None = None
    type: RuleType | None = Field(None, description="If it is given, it must be the rule's: it cannot be changed")


class RoomAnswer(Answer):
    type: RoomType
    id: str | None
    prefix: RoomPrefix | None
    pin: str | None


class RuleAnswer(Answer):
    id: str
    name: str
    type: RuleType
    numbers: list[str] = Field(description="The same as `phoneNumbers`: VideoSDK's name for them in answers")
    phone_numbers: list[str]
    room: RoomAnswer | None
    agent_id: str | None
    agent_metadata: dict[str, Any] | str | None
    hide_phone_number: bool
    dtmf: bool
    recording: bool
    noise_cancellation: bool
    allowed_numbers: list[str]
    blocked_numbers: list[str]
    block_withheld: bool
    divert_rule_id: str | None
    allowed_ip_addresses: list[str]
    agent_warn_after: float | None
    agent_timeout: float | None
    room_empty_timeout: float | None
    fallback_agent_id: str | None
    fallback_number: str | None
    no_agent_message: str | None
    tags: list[str]
    headers: dict[str, str]
    headers_to_attributes: dict[str, str]
    include_headers: str | None
    created_at: str
    updated_at: str


class RuleList(Answer):
    data: list[RuleAnswer]
    page_info: PageInfo


class RuleQuery(PageQuery):
    search: Text | None = Field(None, description="Part of a name or number")
    type: RuleType | None = None
    rule_ids: Text | None = Field(None, description="Comma-separated")
    room_type: Annotated[str, StringConstraints(pattern=_ROOM_TYPES)] | None = Field(
        None, description="Comma-separated"
    )


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
        rule = self._merged(blank, asked.body, now)
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
            return self._merged(rule, asked.body, time.time())

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

    def _merged(self, rule: RoutingRule, change: NewRule | RuleChange, now: float) -> RoutingRule:
        """Returns the rule with the changes of the request. Raises InvalidArgument for fields that contradict."""
        self._check(rule.type, change)
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

    def _check(self, type_: RuleType, change: NewRule | RuleChange) -> None:
        if change.api_key is not None and change.api_key not in self._api_keys:
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
