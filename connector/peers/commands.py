"""The commands that one process gives another, the answers, and their JSON.

Both sides may be of different versions: unknown fields are ignored, and new fields need defaults.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from connector.model.call import AgentDispatch, CallRecord, Transfer, TransferStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SendDtmf:
    call_id: str
    digits: str
    name: Literal["SendDtmf"] = "SendDtmf"


@dataclass(frozen=True, slots=True)
class ClearAudio:
    call_id: str
    name: Literal["ClearAudio"] = "ClearAudio"


@dataclass(frozen=True, slots=True)
class SwitchRoom:
    call_id: str
    room: str
    agents: tuple[AgentDispatch, ...] = ()
    name: Literal["SwitchRoom"] = "SwitchRoom"


@dataclass(frozen=True, slots=True)
class TransferCall:
    """`wait`: the answer follows when the outcome is known."""

    call_id: str
    order: Transfer
    wait: bool = False
    name: Literal["TransferCall"] = "TransferCall"


@dataclass(frozen=True, slots=True)
class EndCall:
    call_id: str
    name: Literal["EndCall"] = "EndCall"


@dataclass(frozen=True, slots=True)
class CarrierReport:
    """A carrier's report on a call; see `connector.call.session.call_session.CallSession.carrier_said`."""

    call_id: str
    status: str
    number: int
    name: Literal["CarrierReport"] = "CarrierReport"


@dataclass(frozen=True, slots=True)
class TransferReport:
    """A carrier's report that the number of a transfer rings, or has answered. `stream`: the number of the stream that
    follows if the transfer fails."""

    call_id: str
    stream: int
    status: TransferStatus
    name: Literal["TransferReport"] = "TransferReport"


@dataclass(frozen=True, slots=True)
class EndStream:
    """The phone follows another document, and the carrier leaves the old stream open: the call ends."""

    call_id: str
    name: Literal["EndStream"] = "EndStream"


ClientCommand = SendDtmf | ClearAudio | SwitchRoom | TransferCall | EndCall
ReportCommand = CarrierReport | TransferReport | EndStream
CallCommand = ClientCommand | ReportCommand


@dataclass(frozen=True, slots=True)
class Hello:
    """Asks only whether the owner lives, and accepts calls."""

    name: Literal["Hello"] = "Hello"


Command = CallCommand | Hello


@dataclass(frozen=True, slots=True)
class Request:
    command: Annotated[Command, Field(discriminator="name")]
    seconds: float
    """Time until the caller's deadline."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Makes each request unique: the receiver carries it out once."""


@dataclass(frozen=True, slots=True)
class Done:
    """`record`: the call after the command; None for Hello."""

    record: CallRecord | None
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Refused:
    """The owner's error: `code` as in Twirp. `field`: the wrong field of an `invalid_argument`."""

    code: str
    message: str
    field: str = ""
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class NotCarriedOut:
    """`not_held`: the process does not hold the call. `other_process`: the address belongs to another process now.
    `expired`: the request arrived after its deadline, or the clocks differ. `repeated`: it arrived before."""

    why: Literal["not_held", "other_process", "expired", "repeated"]
    kind: Literal["not_carried_out"] = "not_carried_out"


Answer = Done | Refused | NotCarriedOut

_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Created at the first use, once per process, because creation takes some milliseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


_ANSWER = Annotated[Answer, Field(discriminator="kind")]


class UnreadableMessage(Exception):
    """The JSON does not have the expected form. The text names fields, not values."""


def encoded(message: Request | Answer) -> bytes:
    return _adapter(type(message)).dump_json(message)


def request_of(body: bytes) -> Request:
    """Raises UnreadableMessage."""
    request: Request = _parsed(Request, body)
    return request


def answer_of(body: bytes) -> Answer:
    """Raises UnreadableMessage."""
    answer: Answer = _parsed(_ANSWER, body)
    return answer


def _parsed(kind: Any, body: bytes) -> Any:
    try:
        return _adapter(kind).validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        where = sorted({".".join(str(part) for part in problem["loc"]) for problem in problems})
        raise UnreadableMessage(", ".join(where) or "it is not a JSON object") from None
