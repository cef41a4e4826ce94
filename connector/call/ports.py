"""Protocols for the layers below that a call uses, so that a call can be tested without them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connector.carriers.codec import Codec
from connector.carriers.transfers import TransferDial
from connector.model.call import (
    AgentDispatch,
    CallFilter,
    CallRecord,
    CallRequest,
    CarrierCall,
    ParticipantSpec,
    WaitingCall,
)
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.peers.commands import CallCommand
from connector.room.dispatches import Dispatched
from connector.room.listener import RoomListener
from connector.storage.base import Collection, HangUpQueue


class CarrierSocket(Protocol):
    """The carrier's media WebSocket, after the handshake."""

    def messages(self) -> AsyncIterator[str]:
        """Text messages until the socket ends. Raises CarrierProtocolError for a message that is not text."""
        ...

    @property
    def ended_cleanly(self) -> bool:
        """Whether the peer closed with a close frame; known once `messages` has ended."""
        ...

    @property
    def close_code(self) -> int | None:
        """The code in the peer's close frame; None if there was none."""
        ...

    async def send(self, text: str) -> None:
        """Send one message. Returns when the socket's own buffer has space. Raises OSError if the socket is gone."""
        ...

    async def ping(self) -> None:
        """Send a ping. Blocks and raises like `send`."""
        ...

    @property
    def last_pong(self) -> float | None:
        """Time of the last pong, by the event loop's clock; None if there was none."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close within a bounded time. Raises nothing."""
        ...


class Room(Protocol):
    """A caller's session in a room; see `connector.room.gateway.RoomGateway`."""

    async def join_hidden(self, attributes: Mapping[str, str]) -> None: ...
    async def join_visible(self, participant: ParticipantSpec) -> None: ...
    async def publish(self, rate: int) -> None:
        """Publish the track. Afterwards `capture` accepts int16 mono at `rate` samples per second."""
        ...

    def listen(self, rate: int) -> None:
        """Start to deliver the room's audio to the listener, at `rate` samples per second. Works before and after the
        join."""
        ...

    def revealed(self) -> None:
        """Note that a caller who joined hidden is now visible to the others."""
        ...

    async def until_connected(self) -> object:
        """Wait until LiveKit is connected again. Raises Unavailable if the caller will not return to the room."""
        ...

    async def wait_until_heard(self) -> None:
        """Wait until LiveKit gives the published track to a participant."""
        ...

    def capture(self, pcm: bytes) -> None: ...
    def take_dropped(self) -> int: ...
    async def send_dtmf(self, code: int, digit: str) -> None: ...
    async def set_attributes(self, attributes: Mapping[str, str]) -> None: ...
    @property
    def participant(self) -> ParticipantSpec:
        """The caller as the room has it now: others may have changed its name, metadata and attributes. During an
        outage, and after leaving, as it was last; before the join as it was asked for."""
        ...

    async def leave(self) -> None: ...
    @property
    def connected(self) -> bool: ...
    @property
    def sid(self) -> str:
        """LiveKit's SID of the room; "" while it is unknown."""
        ...

    @property
    def lingering(self) -> str:
        """SID of the participant that may still be in the room because `leave` was called during an outage; else ""."""
        ...


class Admin(Protocol):
    """LiveKit's server API; see `connector.room.admin.RoomAdmin`. `ensure_room` returns a token for `undo`."""

    async def check(self) -> None: ...
    async def ensure_room(self, room: str, agents: Sequence[AgentDispatch]) -> Any: ...
    async def keep_room(self, room: str, agents: Sequence[AgentDispatch]) -> Any: ...
    async def undo(self, setup: Any) -> None: ...
    async def dispatch_again(
        self, room: str, agents: Sequence[AgentDispatch], others: Iterable[str], memory: Dispatched
    ) -> dict[str, int]: ...
    async def withdraw(self, room: str, memory: Dispatched) -> None: ...
    async def sid(self, room: str) -> str:
        """The SID of the room, "" if there is none."""
        ...

    async def has(self, room: str, identity: str) -> bool: ...
    async def remove(self, room: str, identity: str, sid: str = "") -> None:
        """Remove a participant; with `sid`, only if it has this SID. A participant that is not there is no error."""
        ...

    async def participant(self, room: str, identity: str, call_id: str) -> ParticipantSpec | None:
        """The participant of this call as the room has it now; None if it is not there."""
        ...

    async def has_call(self, room: str, identity: str, call_id: str) -> bool: ...
    async def remove_call(self, room: str, identity: str, call_id: str) -> None: ...
    async def reveal(self, room: str, identity: str, attributes: Mapping[str, str]) -> None: ...


class Peers(Protocol):
    """The other processes of the service; see `connector.peers.client.PeerClient`."""

    async def ask(self, owner: str, command: CallCommand) -> CallRecord: ...
    async def is_reachable(self, owner: str) -> bool: ...
    async def takes_calls(self, owner: str) -> bool: ...


class CallStore(Protocol):
    """The store of call records; see `connector.storage.base.Store`."""

    async def save_call(self, record: CallRecord) -> None: ...
    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool: ...
    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool: ...
    async def get_call(self, call_id: str) -> CallRecord | None: ...
    async def list_calls(self, limit: int = ..., where: CallFilter = ...) -> list[CallRecord]: ...
    async def renew_lease(self, owner: str, at: float, address: str = ..., draining: bool = ...) -> None: ...
    async def leases(self) -> dict[str, float]: ...
    async def draining(self) -> set[str]: ...
    async def address_of(self, owner: str) -> str: ...
    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool: ...
    @property
    def waiting(self) -> Collection[WaitingCall]: ...
    @property
    def hang_ups(self) -> HangUpQueue: ...


class CarrierControl(Protocol):
    """The part of a carrier's REST API that a live call needs; see `connector.telephony`."""

    @property
    def ends_with_stream(self) -> bool:
        """Whether the phone call ends when we close the media stream."""
        ...

    @property
    def stream_outlives_transfer(self) -> bool:
        """Whether the media stream continues in parallel with the new conversation until we close it."""
        ...

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """End the call in any state; an ended call is no error. If the phone was answered, `say` is read out first
        instead of the stream, and the carrier hangs up after it."""
        ...

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connect the phone with a number instead of the stream. `document_url` serves a document with the same dial.
        Returns True if the carrier follows such a document and will report the outcome. Raises ConnectorError; the
        stream then goes on."""
        ...

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        """Have the phone of a lost stream come back: its leg follows the document at `document_url`, or streams to
        `stream_url`, whichever the carrier offers. Raises CarrierCallOver if the call has ended, NotFound if the
        account does not know it, and other ConnectorErrors."""
        ...

    async def is_live(self, call: CarrierCall) -> bool:
        """Whether this call still exists at the carrier. Raises ConnectorError if that is unknown."""
        ...


class Lifecycle(Protocol):
    """The listener for the lifecycle events of calls; see `connector.webhooks`."""

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        """Handle one event of one call. The events of a call are delivered one after the other, in order.

        `record`: the call at the time of the event; its `timelog` ends with the event. `details` depend on the event:
        `call-hangup` and `call-missed` have `reason` (an `EndReason`). Transfer events have `to`;
        `call-transfer-failed` also has `reason` (a `TransferStatus`). `call-update` has `change`: `room` with
        `from_room` and `to_room`; `attributes` with `names`, the changed names, comma-separated; or `agent` with a
        `status` (docs/webhooks.md). Exceptions are logged. The call is cancelled after
        `connector.call.record.event_dispatcher.PATIENCE` seconds. Neither affects the phone call.
        """
        ...


@dataclass(frozen=True, slots=True)
class Addresses:
    """Our URLs for the carrier's requests about one transfer; see `connector.api.carrier.transfer_routes`."""

    action: str = ""
    progress: str = ""
    document: str = ""


TransferUrls = Callable[[Provider, str, str, int], Addresses]
"""Arguments: the provider, the call's id, its region, and the number of the stream with which the phone would come
back."""


@dataclass(frozen=True, slots=True)
class ReturnAddresses:
    """URLs for the return of a lost stream."""

    document: str
    """The resume URL of the stream that was lost."""
    stream: str
    """The media socket of the stream that is expected."""


ReturnUrls = Callable[[WaitingCall], ReturnAddresses | None]
"""None if no carrier can reach us."""


def no_return_urls(entry: WaitingCall) -> ReturnAddresses | None:
    """See `ReturnUrls`."""
    return None


def no_transfer_urls(provider: Provider, call_id: str, region: str, stream: int) -> Addresses:
    """The empty URLs, if no carrier can reach us."""
    return Addresses()


RoomFactory = Callable[[CallRequest, RoomListener], Room]
CodecFactory = Callable[[Provider], Codec]
