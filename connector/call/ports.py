"""What a call needs from the layers below, as protocols, so that a call can be tested without them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connector.carriers.codec import Codec
from connector.carriers.transfers import TransferDial
from connector.model import (
    AgentDispatch,
    CallFilter,
    CallRecord,
    CallRequest,
    CarrierCall,
    LifecycleEvent,
    Provider,
    WaitingCall,
)
from connector.room.dispatches import Dispatched
from connector.room.events import RoomListener
from connector.storage.base import Collection, HangUpQueue


class CarrierSocket(Protocol):
    """The carrier's media WebSocket, already upgraded."""

    def messages(self) -> AsyncIterator[str]:
        """Text messages until the socket ends. Raises CarrierProtocolError for anything but text."""
        ...

    @property
    def ended_cleanly(self) -> bool:
        """Whether the peer closed with a close frame; known once `messages` has ended."""
        ...

    async def send(self, text: str) -> None:
        """Hand over one message; returns once the socket's own buffer has room. OSError when it is gone."""
        ...

    async def ping(self) -> None:
        """Ask for a sign of life; what `send` says holds."""
        ...

    @property
    def last_pong(self) -> float | None:
        """When the peer last answered a ping, by the event loop's clock; None when it never has."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close within a bounded time; raises nothing."""
        ...


class Room(Protocol):
    """A caller's session in a room; see `connector.room.gateway.RoomGateway`."""

    async def join_hidden(self, attributes: Mapping[str, str]) -> None: ...
    async def join_visible(self, attributes: Mapping[str, str]) -> None: ...
    async def publish(self, rate: int) -> None:
        """From here on `capture` takes int16 mono at `rate` samples a second."""
        ...

    def listen(self, rate: int) -> None:
        """From here on the listener is given the room's audio, at `rate` samples a second; before the join or after."""
        ...

    def revealed(self) -> None:
        """The others see the caller, who had joined hidden, from now on."""
        ...

    async def until_connected(self) -> object:
        """Wait out a lost connection to LiveKit. Raises Unavailable when the caller is not to come back."""
        ...

    async def wait_until_heard(self) -> None:
        """Until LiveKit gives the published track to somebody."""
        ...

    def capture(self, pcm: bytes) -> None: ...
    def take_dropped(self) -> int: ...
    async def send_dtmf(self, code: int, digit: str) -> None: ...
    async def set_attributes(self, attributes: Mapping[str, str]) -> None: ...
    @property
    def attributes(self) -> Mapping[str, str]:
        """The caller's attributes as the room has them; empty before the join."""
        ...

    async def leave(self) -> None: ...
    @property
    def connected(self) -> bool: ...
    @property
    def lingering(self) -> str:
        """The SID of the participant that LiveKit may still have in the room after `leave`, which was in an outage."""
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
    async def has(self, room: str, identity: str) -> bool: ...
    async def remove(self, room: str, identity: str, sid: str = "") -> None:
        """Remove a participant, with `sid` only the one that has it; one that is not there is no error."""
        ...

    async def has_call(self, room: str, identity: str, call_id: str) -> bool: ...
    async def remove_call(self, room: str, identity: str, call_id: str) -> None: ...
    async def reveal(self, room: str, identity: str, attributes: Mapping[str, str]) -> None: ...


class CallStore(Protocol):
    """Where call records are kept; see `connector.storage.base.Store`."""

    async def save_call(self, record: CallRecord) -> None: ...
    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool: ...
    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool: ...
    async def get_call(self, call_id: str) -> CallRecord | None: ...
    async def list_calls(self, limit: int = ..., where: CallFilter = ...) -> list[CallRecord]: ...
    async def renew_lease(self, owner: str, at: float) -> None: ...
    async def leases(self) -> dict[str, float]: ...
    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool: ...
    @property
    def waiting(self) -> Collection[WaitingCall]: ...
    @property
    def hang_ups(self) -> HangUpQueue: ...


class CarrierControl(Protocol):
    """A carrier's REST API as far as a live call needs it; see `connector.telephony`."""

    @property
    def ends_with_stream(self) -> bool:
        """Whether the phone is hung up when we close the media stream."""
        ...

    @property
    def stream_outlives_transfer(self) -> bool:
        """Whether the media stream goes on beside the new conversation until we close it."""
        ...

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """End the call, in whatever state it is; one that has ended is no error. Where it was answered, `say` is read
        out first: it takes the stream's place, and the carrier hangs up behind it by itself."""
        ...

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connect the phone with a number in the stream's place; `document_url` answers with the same dial. Whether the
        carrier follows that document, and will tell the outcome. Raises ConnectorError, then the stream goes on."""
        ...

    async def is_live(self, call: CarrierCall) -> bool:
        """Whether the carrier still has this call. Raises ConnectorError when it does not say."""
        ...


class Lifecycle(Protocol):
    """Who is told what happens to calls; see `connector.webhooks`."""

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        """One event of one call; the events of a call come one after the other, in order.

        `record` is the call as it stood then, its `timelog` ends with the event. `details` by event: `call-hangup`,
        `call-missed` have `reason` (an `EndReason`); those of a transfer have `to`, `call-transfer-failed` also
        `reason` (a `TransferStatus`); `call-update` has `change`: `room` with `from_room` and `to_room`, `attributes`
        with the names of those that changed under `names`, comma-separated, or `agent` with a `status`
        (docs/webhooks.md). What it raises is logged; when it takes longer than
        `connector.call.record.event_dispatcher.PATIENCE`, it is cancelled. Neither harms the call.
        """
        ...


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a carrier reaches us about one transfer; see `connector.api.carrier.transfers`."""

    action: str = ""
    progress: str = ""
    document: str = ""


TransferUrls = Callable[[Provider, str, str, int], Addresses]
"""Of a call's id, its region, and the number of the stream with which it would come back."""


def no_transfer_urls(provider: Provider, call_id: str, region: str, stream: int) -> Addresses:
    """Where no carrier can reach us."""
    return Addresses()


RoomFactory = Callable[[CallRequest, RoomListener], Room]
CodecFactory = Callable[[Provider], Codec]
