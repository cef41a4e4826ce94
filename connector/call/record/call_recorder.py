"""The record of one live call: its data and state, the participant's attributes, and the lifecycle events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from connector.call.dependencies import IN_PROGRESS, CallDependencies, End, further
from connector.call.media.bridge import Bridge
from connector.call.record.changes import CallEnd, Trigger, end_of, new_record, next_state, write_end
from connector.call.record.event_dispatcher import EventDispatcher
from connector.call.record.privacy import Privacy
from connector.call.record.sip_attributes import STATUSES, of_carrier, phone_and_ours, sip_attributes
from connector.carriers.events import StreamStarted
from connector.errors import ConnectorError
from connector.model.call import CallRecord, CallRequest, CallState, Direction, TransferStatus
from connector.model.webhook import LifecycleEvent
from connector.numbers import WITHHELD, is_withheld

log = structlog.get_logger()

OUR_PREFIXES = ("connector.", "phone.")
MOST_EVENTS = 200
"""Events of one call after which changes of attributes or agents are not reported any more. The room can make an
unlimited number of them."""
MAX_ATTRIBUTES = 63 * 1024
"""Bytes of keys and values. The limit of livekit-server is 64 KiB; the remainder is reserved for `callStatus`."""


class CallRecorder:
    """The only writer of a live call's record. It also reports the call's events."""

    def __init__(self, request: CallRequest, parts: CallDependencies, record: CallRecord | None = None) -> None:
        """`record`: the existing record, if another process began the call."""
        self.privacy = Privacy(request)
        self.request = self.privacy.request
        self._parts = parts
        self.dispatcher = EventDispatcher(parts.lifecycle)
        self.told_attributes: dict[str, str] = {}
        """The attributes that we last set on the participant."""
        self._our_names: frozenset[str] = frozenset()
        """Those of `told_attributes` that describe call and stream: only the connector may change them."""
        self.unwritten: CallEnd | None = None
        """The end of the call, while the store has not yet accepted or rejected it; otherwise None."""
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
        """Update the record with data from the carrier. An empty string changes nothing."""
        old = self.record
        if from_number and self.request.direction is Direction.INBOUND and is_withheld(from_number):
            from_number = WITHHELD
        from_number, to_number = self.privacy.numbers(from_number, to_number)
        if carrier_status and old.started_at:
            # Reports about the time before the answer may arrive after the stream has started; they must not set an
            # answered call back.
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
        """Append an event to the timelog and queue it for the dispatcher."""
        self.record = replace(self.record, timelog=(*self.record.timelog, (event.value, time.time())))
        self.dispatcher.tell(event, self.record, details)

    def has_told(self, event: LifecycleEvent) -> bool:
        return any(name == event for name, _ in self.record.timelog)

    def advance(self, trigger: Trigger) -> None:
        """Change the state. Raises IllegalTransition if the current state does not allow `trigger`."""
        self.record = replace(self.record, state=next_state(self.request.direction, self.record.state, trigger))

    def open(self) -> None:
        """Report that the call exists. An outbound call also goes to `ringing`."""
        self.tell(LifecycleEvent.STARTED)
        if self.request.direction is Direction.OUTBOUND:
            self.advance(Trigger.JOINED_HIDDEN)
            self.rings()

    def rings(self) -> None:
        """Report that the phone rings; only the first call of this method has an effect."""
        if not self.has_told(LifecycleEvent.RINGING):
            self.tell(LifecycleEvent.RINGING)

    def start(self) -> None:
        self.advance(Trigger.STREAM_STARTED)
        self.record = replace(self.record, started_at=time.time())
        self.learn(carrier_status=self.record.carrier_status)
        self.tell(LifecycleEvent.ANSWERED)

    def transfer_is(self, to: str, status: TransferStatus) -> None:
        """Set the target and the status of a transfer."""
        self.record = replace(self.record, transfer_to=to, transfer_status=status.value)

    def moved(self, room: str) -> None:
        """Set and report the caller's new room."""
        before = self.record.room
        self.record = replace(self.record, room=room)
        self.tell(LifecycleEvent.UPDATE, change="room", from_room=before, to_room=room)

    def attributes_changed(self, attributes: Mapping[str, str]) -> None:
        """Report attributes of the participant that somebody else changed. Values that we set ourselves are skipped."""
        news = [
            name
            for name, value in attributes.items()
            if not name.startswith(OUR_PREFIXES) and self.told_attributes.get(name) != value
        ]
        if news and self.record.state is CallState.ACTIVE:
            if len(self.record.timelog) >= MOST_EVENTS:
                log.debug("attribute change not reported: the call has had too many events")
                return
            self.told_attributes |= {name: attributes[name] for name in news}
            self.tell(LifecycleEvent.UPDATE, change="attributes", names=",".join(sorted(news)))

    def agent_changed(self, status: str, **details: str) -> None:
        """Report that an agent is missing, was dispatched again or has returned."""
        if self.record.state is CallState.ACTIVE and len(self.record.timelog) < MOST_EVENTS:
            self.tell(LifecycleEvent.UPDATE, change="agent", status=status, **details)

    def stream_changed(self, status: str, **details: str) -> None:
        """Report that the stream is lost (`reconnecting`), or is back (`resumed`)."""
        self.tell(LifecycleEvent.UPDATE, change="stream", status=status, **details)

    def finish(self, end: End, bridge: Bridge) -> None:
        """End the record in memory; `close` writes, reports and counts the end."""
        frames = {
            "heard_frames": bridge.heard_frames,
            "sent_frames": bridge.sent_frames,
            "dropped_frames": bridge.dropped_frames,
        }
        self.unwritten = replace(end_of(self.record, end.reason, end.detail), frames=frames)
        self.record = self.unwritten.record

    def attributes(self, status: str) -> dict[str, str]:
        """The attributes of the request and of the connector; see docs/attributes.md."""
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
        self._our_names = frozenset(ours)
        return dict(self.told_attributes)

    def status(self, status: str) -> dict[str, str]:
        """Only the attributes that change with the call's state, for a participant that already has the others."""
        changed = self._of_status(status)
        self.told_attributes |= changed
        return changed

    def _of_status(self, status: str) -> dict[str, str]:
        changed = {"connector.callStatus": status}
        if self._parts.sip_attributes:
            changed["sip.callStatus"] = STATUSES.get(status, status)
        return changed

    def attributes_of(self, started: StreamStarted, carriers: Mapping[str, str]) -> dict[str, str]:
        """All attributes of an active call's participant. `carriers`: the attributes from the codec. Stream parameters
        that the request maps in `headers_to_attributes` are added under the requested names."""
        kept = self.attributes("active")
        values = {name.casefold(): value for name, value in started.parameters.items()}
        named = {
            attribute: values[parameter.casefold()]
            for parameter, attribute in self.request.headers_to_attributes.items()
            if parameter.casefold() in values and not attribute.startswith(OUR_PREFIXES)
        }
        like_sip = of_carrier(carriers) if self._parts.sip_attributes else {}
        self.told_attributes = kept | that_fit(self.privacy.foreign({**carriers, **named, **like_sip}), kept)
        self._our_names |= (carriers.keys() | like_sip.keys()) - named.keys()
        return dict(self.told_attributes)

    def ours(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Those of `attributes` that tell of call and stream."""
        return {name: value for name, value in attributes.items() if name in self._our_names}

    def theirs(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """The others of `attributes`: from the request, and of participants who have changed them."""
        return {name: value for name, value in attributes.items() if name not in self._our_names}

    def attributes_after(self, last: Mapping[str, str], attributes: Mapping[str, str]) -> dict[str, str]:
        """The attributes of a caller that comes back. `last`: as they were in the room; `attributes`: from
        `attributes_of` for the new stream."""
        self.told_attributes = self.theirs(last) | self.ours(attributes)
        return dict(self.told_attributes)

    async def save(self) -> bool:
        """Write the record; a store error is logged only, because it must not end a live call. Returns True if the
        record was written."""
        try:
            await self.write()
        except ConnectorError as error:
            log.warning("the call record could not be saved", error=error.message)
            return False
        return True

    async def write(self) -> None:
        """Write the record. Raises StoreError."""
        await self._parts.store.save_call(self.record)

    async def close(self) -> None:
        """Write, report and count the end. If another process has already ended the call, the record is replaced by
        that process's record. Raises StoreError; `unwritten` keeps the end until the store has answered."""
        if self.unwritten is None:
            return
        stands = await write_end(self._parts, self.dispatcher, self.unwritten)
        self.unwritten = None
        if not stands:
            await self.reread()
            log.warning("another process has ended the call already", reason=self.record.end_reason)

    async def reread(self) -> None:
        """Replace the record by the one in the store, after another process has taken the call. Raises StoreError."""
        self.record = await self._parts.store.get_call(self.record.call_id) or self.record

    def observe(self, step: str, started: float) -> None:
        """Add the duration of a set-up step to the metrics: from `started` (monotonic, seconds) until now."""
        self._parts.metrics.setup.labels(step, self.request.direction.value).observe(time.monotonic() - started)


def that_fit(more: dict[str, str], kept: dict[str, str]) -> dict[str, str]:
    """The first attributes of `more` that fit beside `kept` into `MAX_ATTRIBUTES`. The carrier decides how long stream
    parameters are; if they exceeded LiveKit's limit, the caller could not join."""
    left = MAX_ATTRIBUTES - sum(len(key.encode()) + len(value.encode()) for key, value in kept.items())
    fitting = {}
    for key, value in more.items():
        left -= len(key.encode()) + len(value.encode())
        if left < 0:
            log.warning("stream parameters left out: together they pass LiveKit's limit", first=key)
            break
        fitting[key] = value
    return fitting
