"""The JSON shapes of routing rules, as in VideoSDK's SDKs: a rule has no envelope object."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints

from connector.api.rest.models import Answer, Body, Name, PageInfo, PageQuery, Text, form
from connector.config import DAY
from connector.model.rule import RoomPrefix, RoomType, RuleType

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


class RoomBody(Body):
    type: RoomType | None = Field(
        None, description="`static` (the default with an `id`): one room; `dynamic`: a room for each call"
    )
    id: Name | None = Field(None, description="The static room")
    prefix: RoomPrefix | None = Field(None, description="Prefix of a dynamic room's name")
    pin: Pin | None = Field(None, description="Digits that a caller must press before joining; three tries")


class RuleFields(Body):
    phone_numbers: Annotated[list[Number], Field(max_length=MAX_NUMBERS)] | None = Field(
        None,
        validation_alias=AliasChoices("phoneNumbers", "numbers"),
        description="The called numbers of the rule; `numbers`, the name in responses, is accepted as well. No two "
        "inbound rules may have the same",
    )
    room: RoomBody | None = Field(None, description="The room of the calls; without it, each call gets its own room")
    agent_id: Text | None = Field(None, description="The agent to dispatch: LiveKit's agent name")
    agent_metadata: dict[str, Any] | str | None = Field(None, description="Metadata for the agent, as JSON")
    allowed_numbers: Annotated[list[Number], Field(max_length=MAX_NUMBERS)] | None = Field(
        None, description="The callers that may use the rule; without it, all"
    )
    blocked_numbers: Annotated[list[Pattern], Field(max_length=MAX_NUMBERS)] | None = Field(
        None,
        description="Inbound rules only: blocked callers, as numbers or prefixes such as `+1900*`. "
        "They are rejected before the answer, or diverted",
    )
    block_withheld: bool | None = Field(
        None, description="Inbound rules only: whether callers who withhold their number are blocked"
    )
    divert_rule_id: Text | None = Field(
        None, description="Inbound rules only: the rule for blocked callers; without it they are rejected"
    )
    allowed_ip_addresses: Annotated[list[Address], Field(max_length=MAX_NUMBERS)] | None = Field(
        None, description="For calls over SIP. A call over a stream comes from its carrier's address: no effect there"
    )
    hide_phone_number: bool | None = Field(
        None, description="Hide the caller's number in the room, in webhooks and in records"
    )
    dtmf: bool | None = Field(None, description="Whether digits (DTMF) are passed on; true by default")
    recording: bool | None = Field(None, description="Kept, without effect: record with LiveKit's egress")
    noise_cancellation: bool | None = Field(None, description="Kept, without effect: a feature of the agent")
    agent_warn_after: WatchSeconds | None = Field(
        None, description="Seconds without an agent until it is dispatched again; 0: never. Without it, the setting"
    )
    agent_timeout: WatchSeconds | None = Field(
        None,
        description="Seconds without an agent or person until the call ends; 0: never. Without it, the setting",
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
        None, description="Sentence for the phone before a call ends without an agent; empty: none"
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


class NewRule(RuleFields):
    name: Name
    type: RuleType = Field(description="Cannot be changed later")


class RuleChange(RuleFields):
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
