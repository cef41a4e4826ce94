"""`/v2/sip/call`: calls of all carriers, in the terms of VideoSDK's SDKs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from pydantic import Field, StringConstraints

from connector.api.rest.models import Answer, Asked, Body, Name, PageInfo, PageQuery, Text, form, page_info
from connector.api.rest.operation import Operation
from connector.call.registry.control import MAX_SENTENCE, TransferWish
from connector.carriers.transfers import MAX_TIMEOUT, MIN_TIMEOUT
from connector.model.call import NOT_REACHED, CallFilter, CallRecord, CallState, Direction, TransferStatus
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.routing import normal_number
from connector.storage.base import Store
from connector.times import iso_utc

_E164 = form(
    r"^\+?[ ().-]*[1-9]([ ().-]*[0-9]){6,14}[ ().-]*$",
    "must be a telephone number with its country code, such as +15551234567",
)
E164Number = Annotated[str, StringConstraints(max_length=40, pattern=_E164)]
"""A number with its country code, in any usual notation."""
_NEVER_ANSWERED = {
    EndReason.NO_ANSWER: "not-answered",
    EndReason.CONNECT_TIMEOUT: "not-answered",
    EndReason.BUSY: "rejected",
    EndReason.CANCELED: "abandoned",
    EndReason.ENDED_BY_API: "abandoned",
}
_EVENT_STATUS = {
    LifecycleEvent.RINGING: "ringing",
    LifecycleEvent.ANSWERED: "answered",
    LifecycleEvent.HANGUP: "ended",
    LifecycleEvent.MISSED: "missed",
    LifecycleEvent.TRANSFERRED: "transferred",
    LifecycleEvent.TRANSFER_INITIATED: "transfer-initiated",
    LifecycleEvent.TRANSFERRING: "transferring",
    LifecycleEvent.TRANSFER_RINGING: "transfer-ringing",
    LifecycleEvent.TRANSFER_ACCEPTED: "transfer-accepted",
    LifecycleEvent.TRANSFER_FAILED: "transfer-failed",
}


class CallId(Body):
    call_id: Name


class Transfer(Body):
    call_id: Name
    transfer_to: E164Number = Field(description="The number to connect the phone with")
    timeout: int | None = Field(
        None, ge=MIN_TIMEOUT, le=MAX_TIMEOUT, description="Seconds to let it ring; a carrier may allow fewer"
    )
    caller_id: E164Number | None = Field(None, description="The number of yours that the called person sees")
    failure_sentence: Annotated[str, StringConstraints(max_length=MAX_SENTENCE)] | None = Field(
        None,
        description="If nobody answers, the phone hears this sentence and is hung up, instead of coming back",
    )
    wait_until_answered: bool | None = Field(
        None, description="Respond only when the outcome is known; it is in `transferStatus`"
    )
    to: Text | None = Field(None, description="Accepted, without effect: see `transferTo`")
    participant: Any = Field(None, description="Accepted, without effect")
    play_dialtone: bool | None = Field(
        None, description="Accepted, without effect: the caller hears the carrier's tone"
    )


class SwitchRoom(Body):
    call_id: Name
    room_id: Name
    participant_id: Text | None = Field(None, description="Accepted, without effect: the caller keeps its identity")
    token: Text | None = Field(None, description="Accepted, without effect: the connector creates its own")


class Moment(Answer):
    status: str
    timestamp: str


class CallData(Answer):
    id: str
    call_id: str = Field(description="The same as `id`")
    type: Direction
    provider: Provider
    rule_id: str | None
    connector_id: str | None
    room_id: str
    participant_id: str
    to: str
    from_: str = Field(serialization_alias="from")
    status: str = Field(examples=["incoming", "initiated", "ringing", "answered", "ended", "missed", "failed"])
    region: str | None
    start: str
    end: str | None
    end_reason: EndReason | None
    transfer_to: str | None = Field(description="The number of the last transfer")
    transfer_status: TransferStatus | None = Field(description="The status of that transfer")
    timelog: list[Moment]


class CallDetail(CallData):
    resume_url: str | None = Field(
        description="Where the carrier asks how the phone goes on after its media stream has ended; null once the call "
        "has ended"
    )


class CallAnswer(Answer):
    data: CallDetail


class CallChanged(Answer):
    message: str
    data: CallData


class CallList(Answer):
    data: list[CallData]
    page_info: PageInfo


class CallQuery(PageQuery):
    id: Text | None = None
    room_id: Text | None = None
    rule_id: Text | None = None
    connector_id: Text | None = None
    type: Direction | None = None
    search: Text | None = Field(None, description="Part of a number or of a room's name")
    start_date: int | None = Field(None, ge=0, le=253402300799000, description="Unix time in milliseconds, at or after")
    end_date: int | None = Field(None, ge=0, le=253402300799000, description="Unix time in milliseconds, before")


class Control(Protocol):
    """See `connector.call.registry.control.CallControl`."""

    async def record(self, call_id: str) -> CallRecord: ...
    def freshest(self, record: CallRecord) -> CallRecord: ...
    async def end(self, call_id: str) -> CallRecord: ...
    async def transfer(self, call_id: str, wish: TransferWish, *, wait: bool = False) -> CallRecord: ...
    async def switch_room(self, call_id: str, room: str) -> CallRecord: ...


class ResumeUrls(Protocol):
    """See `connector.api.resume_urls.ResumeUrls`."""

    async def of(self, record: CallRecord) -> str: ...


class CallRest:
    """The operations on calls."""

    def __init__(self, control: Control, store: Store, resume_urls: ResumeUrls) -> None:
        self._control = control
        self._store = store
        self._resume_urls = resume_urls

    def operations(self) -> Sequence[Operation]:
        path, one = "/v2/sip/call", "/v2/sip/call/{id}"
        held = (404, 409)
        return (
            Operation(
                "GET",
                path,
                "List calls, newest first",
                self.find,
                CallList,
                query=CallQuery,
            ),
            Operation("GET", one, "Get a call", self.get, CallAnswer, refusals=(404,)),
            Operation("POST", f"{path}/end", "Hang up a call", self.end, CallChanged, body=CallId, refusals=held),
            Operation(
                "POST",
                f"{path}/transfer",
                "Have the carrier connect the phone with another number",
                self.transfer,
                CallChanged,
                body=Transfer,
                refusals=(*held, 501),
                description="While the number rings, the caller stays in its room, without audio. When somebody "
                "answers, the call ends here; when nobody does, the caller comes back. Needs the carrier's REST "
                "credential in the configuration.",
            ),
            Operation(
                "POST",
                f"{path}/switch-room",
                "Move a call to another room without hanging up",
                self.switch_room,
                CallChanged,
                body=SwitchRoom,
                refusals=held,
            ),
        )

    async def find(self, asked: Asked[Any, CallQuery]) -> CallList:
        query = asked.query
        where = CallFilter(
            id=query.id or "",
            room=query.room_id or "",
            rule_id=query.rule_id or "",
            connector_id=query.connector_id or "",
            direction=query.type,
            search=query.search or "",
            created_from=(query.start_date or 0) / 1000,
            created_before=query.end_date / 1000 if query.end_date is not None else None,
        )
        page = await self._store.page_calls(query.offset, query.per_page, where)
        # Live calls of this process may be newer than their stored records.
        data = [shown(self._control.freshest(record)) for record in page.items]
        return CallList(data=data, page_info=page_info(query, page.total))

    async def get(self, asked: Asked[Any, Any]) -> CallAnswer:
        record = await self._control.record(asked.path["id"])
        url = await self._resume_urls.of(record)
        return CallAnswer(data=CallDetail(**shown(record).model_dump(), resume_url=url or None))

    async def end(self, asked: Asked[CallId, Any]) -> CallChanged:
        record = await self._control.end(asked.body.call_id)
        return CallChanged(message="Call ended successfully", data=shown(record))

    async def transfer(self, asked: Asked[Transfer, Any]) -> CallChanged:
        body = asked.body
        wish = TransferWish(
            normal_number(body.transfer_to),
            body.timeout or 0,
            normal_number(body.caller_id) if body.caller_id else "",
            body.failure_sentence or "",
        )
        record = await self._control.transfer(body.call_id, wish, wait=bool(body.wait_until_answered))
        came_back = record.transfer_status in NOT_REACHED
        message = f"Call not transferred: {record.transfer_status}" if came_back else "Call transferred successfully"
        return CallChanged(message=message, data=shown(record))

    async def switch_room(self, asked: Asked[SwitchRoom, Any]) -> CallChanged:
        record = await self._control.switch_room(asked.body.call_id, asked.body.room_id)
        return CallChanged(message="Room switched successfully", data=shown(record))


def shown(record: CallRecord) -> CallData:
    """Converts a record to the API's form. The record does not contain hidden numbers."""
    return CallData(
        id=record.call_id,
        call_id=record.call_id,
        type=record.direction,
        provider=record.provider,
        rule_id=record.rule_id or None,
        connector_id=record.connector_id or None,
        room_id=record.room,
        participant_id=record.identity,
        to=record.to_number,
        from_=record.from_number,
        status=status(record),
        region=record.region or None,
        start=iso_utc(record.created_at),
        end=iso_utc(record.ended_at) if record.ended_at else None,
        end_reason=record.end_reason,
        transfer_to=record.transfer_to or None,
        transfer_status=TransferStatus(record.transfer_status) if record.transfer_status else None,
        timelog=[Moment(status=_moment(record, event), timestamp=iso_utc(at)) for event, at in record.timelog],
    )


def as_json(record: CallRecord) -> dict[str, Any]:
    """The JSON of a call in webhooks: the same as in the API."""
    return shown(record).model_dump(mode="json", by_alias=True)


def status(record: CallRecord) -> str:
    """Returns VideoSDK's term for the state of a call."""
    match record.state:
        case CallState.PENDING:
            return _first(record)
        case CallState.RINGING:
            return "ringing"
        case CallState.ACTIVE:
            return "answered"
        case CallState.ENDED:
            return _last(record)


def _first(record: CallRecord) -> str:
    return "incoming" if record.direction is Direction.INBOUND else "initiated"


def _last(record: CallRecord) -> str:
    if any(event == LifecycleEvent.TRANSFERRED.value for event, _ in record.timelog):
        return "transferred"
    if record.started_at:
        return "ended"
    if record.direction is Direction.INBOUND:
        return "missed"
    return _NEVER_ANSWERED.get(record.end_reason or EndReason.INTERNAL_ERROR, "failed")


def _moment(record: CallRecord, event: str) -> str:
    if event == LifecycleEvent.STARTED.value:
        return _first(record)
    return _EVENT_STATUS.get(LifecycleEvent(event), event) if event in set(LifecycleEvent) else event
