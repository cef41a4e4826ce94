"""The record of one call while it lives: what is known of it, its state, and what room and customers are told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from connector.call.dependencies import IN_PROGRESS, CallDependencies, End, further
from connector.call.media.bridge import Bridge
from connector.call.record.changes import CallEnd, end_of, new_record, write_end
from connector.call.record.event_dispatcher import EventDispatcher
from connector.call.record.privacy import Privacy
from connector.call.record.sip_attributes import STATUSES, of_carrier, phone_and_ours, sip_attributes
from connector.call.record.state import Trigger, next_state
from connector.carriers.events import StreamStarted
from connector.errors import ConnectorError
from connector.model import CallRecord, CallRequest, CallState, Direction, LifecycleEvent, TransferStatus
from connector.numbers import WITHHELD, is_withheld

log = structlog.get_logger()

OUR_PREFIXES = ("connector.", "phone.")
MOST_EVENTS = 200
"""Of a call, from which on changes of attributes are no longer told: they are the room's to make, without end."""
MAX_ATTRIBUTES = 63 * 1024
"""Bytes of keys and values; livekit-server's own limit is 64 KiB, the rest is for `callStatus`."""


class CallRecorder:
    """The only writer of a call's record, and the one who tells the events in it."""

    def __init__(self, request: CallRequest, parts: CallDependencies, record: CallRecord | None = None) -> None:
        """`record`: of a call that another process began."""
        self.privacy = Privacy(request)
        self.request = self.privacy.request
        self._parts = parts
        self.dispatcher = EventDispatcher(parts.lifecycle)
        self.told_attributes: dict[str, str] = {}
        """What the participant was last given by us."""
        self.unwritten: CallEnd | None = None
        """The call is over, and the store has not said whether this end of it stands."""
        self.inherited = record is not None
        self.record = replace(record, owner=parts.owner) if record else new_record(self.request, parts.owner)

    def learn(
        self,
        *,
        carrier_call_id: str = "",
        from_number: str = "",
        to_number: str = "",
        carrier_status: str = "",
        account_id: str = "",
    ) -> None:
        """What the carrier tells; an empty string teaches nothing."""
        old = self.record
        if from_number and self.request.direction is Direction.INBOUND and is_withheld(from_number):
            from_number = WITHHELD
        from_number, to_number = self.privacy.numbers(from_number, to_number)
        if carrier_status and old.started_at:
            # The carrier's stream may come before its reports of the time until then.
            carrier_status = further(IN_PROGRESS, carrier_status)
        self.record = replace(
            old,
            carrier_call_id=carrier_call_id or old.carrier_call_id,
            from_number=from_number or old.from_number,
            to_number=to_number or old.to_number,
            carrier_status=further(old.carrier_status, carrier_status),
            account_id=old.account_id or account_id,
        )

    def tell(self, event: LifecycleEvent, **details: str) -> None:
        """Note an event and have it told."""
        self.record = replace(self.record, timelog=(*self.record.timelog, (event.value, time.time())))
        self.dispatcher.tell(event, self.record, details)

    def has_told(self, event: LifecycleEvent) -> bool:
        return any(name == event for name, _ in self.record.timelog)

    def advance(self, trigger: Trigger) -> None:
        """IllegalTransition when the state has no such edge."""
        self.record = replace(self.record, state=next_state(self.request.direction, self.record.state, trigger))

    def open(self) -> None:
        """The call exists: whoever asked for it is told so."""
        self.tell(LifecycleEvent.STARTED)
        if self.request.direction is Direction.OUTBOUND:
            self.advance(Trigger.JOINED_HIDDEN)
            self.rings()

    def rings(self) -> None:
        """The phone rings, as far as anybody knows; told once."""
        if not self.has_told(LifecycleEvent.RINGING):
            self.tell(LifecycleEvent.RINGING)

    def start(self) -> None:
        self.advance(Trigger.STREAM_STARTED)
        self.record = replace(self.record, started_at=time.time())
        self.learn(carrier_status=self.record.carrier_status)
        self.tell(LifecycleEvent.ANSWERED)

    def transfer_is(self, to: str, status: TransferStatus) -> None:
        """How far a transfer has got."""
        self.record = replace(self.record, transfer_to=to, transfer_status=status.value)

    def moved(self, room: str) -> None:
        """The caller is in another room now."""
        before = self.record.room
        self.record = replace(self.record, room=room)
        self.tell(LifecycleEvent.UPDATE, change="room", from_room=before, to_room=room)

    def attributes_changed(self, attributes: Mapping[str, str]) -> None:
        """The participant's attributes changed in the room; what we set ourselves is no news."""
        news = [
            name
            for name, value in attributes.items()
            if not name.startswith(OUR_PREFIXES) and self.told_attributes.get(name) != value
        ]
        if news and self.record.state is CallState.ACTIVE:
            if len(self.record.timelog) >= MOST_EVENTS:
                log.debug("a change of attributes is not told: the call has had too many events")
                return
            self.told_attributes |= {name: attributes[name] for name in news}
            self.tell(LifecycleEvent.UPDATE, change="attributes", names=",".join(sorted(news)))

    def agent_changed(self, status: str, **details: str) -> None:
        """An agent is missing, was dispatched again or is there again."""
        if self.record.state is CallState.ACTIVE and len(self.record.timelog) < MOST_EVENTS:
            self.tell(LifecycleEvent.UPDATE, change="agent", status=status, **details)

    def finish(self, end: End, bridge: Bridge) -> None:
        """The call is over; `close` has it stand, told and counted."""
        frames = {
            "heard_frames": bridge.heard_frames,
            "sent_frames": bridge.sent_frames,
            "dropped_frames": bridge.dropped_frames,
        }
        self.unwritten = replace(end_of(self.record, end.reason, end.detail), frames=frames)
        self.record = self.unwritten.record

    def attributes(self, status: str) -> dict[str, str]:
        """The request's attributes and ours; see docs/attributes.md."""
        known = {
            "connector.callId": self.request.call_id,
            "connector.provider": self.request.provider.value,
            "connector.direction": self.request.direction.value,
            "phone.number": phone_and_ours(self.record)[0],
            "phone.from": self.record.from_number,
            "phone.to": self.record.to_number,
        }
        ours = {name: value for name, value in known.items() if value} | self._of_status(status)
        if self._parts.sip_attributes:
            ours |= sip_attributes(self.record, status)
        self.told_attributes = self.privacy.own(self.request.participant.attributes) | ours
        return dict(self.told_attributes)

    def status(self, status: str) -> dict[str, str]:
        """The attributes that change with the call's state: for a participant who has the others already."""
        changed = self._of_status(status)
        self.told_attributes |= changed
        return changed

    def _of_status(self, status: str) -> dict[str, str]:
        changed = {"connector.callStatus": status}
        if self._parts.sip_attributes:
            changed["sip.callStatus"] = STATUSES.get(status, status)
        return changed

    def attributes_of(self, started: StreamStarted, carriers: Mapping[str, str]) -> dict[str, str]:
        """All that an active call's participant carries: `carriers` are the codec's, and the request may have asked
        for stream parameters under names of its own."""
        kept = self.attributes("active")
        values = {name.casefold(): value for name, value in started.parameters.items()}
        named = {
            attribute: values[parameter.casefold()]
            for parameter, attribute in self.request.headers_to_attributes.items()
            if parameter.casefold() in values and not attribute.startswith(OUR_PREFIXES)
        }
        like_sip = of_carrier(carriers) if self._parts.sip_attributes else {}
        self.told_attributes = kept | that_fit(self.privacy.foreign({**carriers, **named, **like_sip}), kept)
        return dict(self.told_attributes)

    async def save(self) -> bool:
        """For a moment of a live call: a store that fails must not end it. Whether the store has it."""
        try:
            await self.write()
        except ConnectorError as error:
            log.warning("the call record could not be saved", error=error.message)
            return False
        return True

    async def write(self) -> None:
        """The same. Raises StoreError."""
        await self._parts.store.save_call(self.record)

    async def close(self) -> None:
        """Have the end stand, told and counted; where another process has ended the call already, its end is the
        record's. Raises StoreError; whatever happens, `unwritten` is what the store has not answered."""
        if self.unwritten is None:
            return
        stands = await write_end(self._parts, self.dispatcher, self.unwritten)
        self.unwritten = None
        if not stands:
            await self.reread()
            log.warning("another process has ended the call already", reason=self.record.end_reason)

    async def reread(self) -> None:
        """The call is another process's now: what that has written of it. Raises StoreError."""
        self.record = await self._parts.store.get_call(self.record.call_id) or self.record

    def observe(self, step: str, started: float) -> None:
        """A step of the set-up took from `started`, monotonic, until now."""
        self._parts.metrics.setup.labels(step, self.request.direction.value).observe(time.monotonic() - started)


def that_fit(more: dict[str, str], kept: dict[str, str]) -> dict[str, str]:
    """Stream parameters are the carrier's to fill; those past LiveKit's limit must not keep the caller out."""
    left = MAX_ATTRIBUTES - sum(len(key.encode()) + len(value.encode()) for key, value in kept.items())
    fitting = {}
    for key, value in more.items():
        left -= len(key.encode()) + len(value.encode())
        if left < 0:
            log.warning("stream parameters left out: together they pass LiveKit's limit", first=key)
            break
        fitting[key] = value
    return fitting
