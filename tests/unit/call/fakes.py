"""A carrier, a room and a store that do what a test tells them: fail, hang, or only remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from connector.call.dependencies import CallDependencies, Limits
from connector.call.ports import CarrierControl, ReturnAddresses
from connector.call.record.late_ends import LateEnds
from connector.call.registry.hang_ups import HangUps
from connector.call.registry.manager import CallManager
from connector.call.registry.reports import TransferReports
from connector.call.session.call_session import CallSession
from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    DtmfReceived,
    Encoding,
    Event,
    FormatRefused,
    Ignored,
    MarkReached,
    StreamStarted,
    StreamStopped,
)
from connector.carriers.transfers import TransferDial
from connector.errors import CarrierProtocolError, Unavailable
from connector.metrics import Metrics
from connector.model.call import (
    AgentDispatch,
    AgentWatch,
    CallFilter,
    CallRecord,
    CallRequest,
    CarrierCall,
    Direction,
    HangUp,
    ParticipantSpec,
    WaitingCall,
)
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.room.admission import JoinAdmission
from connector.room.dispatches import Dispatched
from connector.room.listener import RoomListener
from connector.storage.base import EVERY_CALL, EVERY_DOCUMENT, DocumentFilter, NameTaken, Page
from connector.storage.rows import admits
from tests.carriers import CARRIERS
from tests.unit.call.hang_up_queue import MemoryHangUps

CARRIER_CALL = "CA1"
LIMITS = Limits(connect_timeout=90, answer_grace=30, media_timeout=30, max_duration=3600)


class Faults:
    """What goes wrong where: a step's name, and the exception to raise, or None to hang for ever."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.planned: dict[str, BaseException | None] = {}
        self.delays: dict[str, float] = {}
        self.reached = asyncio.Event()
        """Set when a step that hangs has been reached."""

    @property
    def in_livekit(self) -> list[str]:
        """The steps that LiveKit sees."""
        return [step for step in self.steps if step.startswith(("admin.", "room."))]

    async def step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.delays:
            await asyncio.sleep(self.delays[name])
        if name in self.planned:
            fault = self.planned[name]
            if fault is None:
                self.reached.set()
                await asyncio.get_running_loop().create_future()
            else:
                raise fault


class FakeCodec:
    """One word a message: `start [call]`, `audio`, `digit 5`, `mark m`, `stop`; `garbage` breaks the protocol."""

    provider = Provider.TWILIO
    format = reply_format = MediaFormat(Encoding.MULAW, 8000)

    def receive(self, text: str) -> Event:
        word, _, rest = text.partition(" ")
        match word:
            case "start":
                return StreamStarted(rest or CARRIER_CALL, "MZ1", "AC1", Encoding.MULAW, 8000, {"a": "b"})
            case "audio":
                return AudioReceived(b"\x00" * 160, None)
            case "rejected":
                return AudioRejected("bad_base64")
            case "digit":
                return DtmfReceived(rest)
            case "mark":
                return MarkReached(rest)
            case "stop":
                return StreamStopped(CARRIER_CALL)
            case "unknown":
                return FormatRefused(CARRIER_CALL, "MZ1", "AC1", "G722/8000")
            case "garbage":
                raise CarrierProtocolError("garbage", 1007)
            case "bug":
                raise ZeroDivisionError("a bug of ours")
        return Ignored(word)

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        return {f"fake.{name}": value for name, value in started.parameters.items()}

    def audio(self, payload: bytes) -> str:
        return f"audio {len(payload)}"

    def mark(self, name: str) -> str:
        return f"mark {name}"

    def clear(self) -> str:
        return "clear"


class FakeSocket:
    """`feed` what the carrier sends; `hang_up` ends the socket as the carrier would."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._incoming: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.ended_cleanly = True
        self.close_code: int | None = None
        self.sent: list[str] = []
        self.closed_with: list[tuple[int, str]] = []
        self.answers_pings = False
        self.pings = 0
        self.last_pong: float | None = None

    def feed(self, *texts: str) -> None:
        for text in texts:
            self._incoming.put_nowait(text)

    def hang_up(self, cleanly: bool, close_code: int | None = None) -> None:
        self.ended_cleanly = cleanly
        self.close_code = close_code
        self._incoming.put_nowait(None)

    async def messages(self) -> AsyncIterator[str]:
        while True:
            message = await self._incoming.get()
            if message is None:
                return
            if isinstance(message, Exception):
                raise message
            yield message

    async def send(self, text: str) -> None:
        await self._faults.step("socket.send")
        self.sent.append(text)

    async def ping(self) -> None:
        self.pings += 1
        await self._faults.step("socket.ping")
        if self.answers_pings:
            self.last_pong = asyncio.get_running_loop().time()

    async def close(self, code: int, reason: str) -> None:
        self.closed_with.append((code, reason))
        self._incoming.put_nowait(None)
        await self._faults.step("socket.close")


class FakeRoom:
    def __init__(self, faults: Faults, listener: RoomListener, participant: ParticipantSpec) -> None:
        self._faults = faults
        self.spec = participant
        self.listener = listener
        self.connected = False
        self.listening = self.is_revealed = False
        self.lingering = ""
        self.sid = "RM1"
        self.lost = asyncio.Event()
        self.left = 0
        self.captured = bytearray()
        self.digits: list[tuple[int, str]] = []
        self.attributes: dict[str, str] = {}

    @property
    def participant(self) -> ParticipantSpec:
        return replace(self.spec, attributes=dict(self.attributes))

    def change(self, metadata: str, **attributes: str) -> None:
        """Somebody changes the caller through LiveKit's API."""
        self.spec = replace(self.spec, metadata=metadata)
        self.attributes |= attributes
        self.listener.room_attributes(attributes)

    async def join_hidden(self, attributes: Mapping[str, str]) -> None:
        await self._faults.step("room.join_hidden")
        self.connected = True
        self.attributes |= attributes

    async def join_visible(self, participant: ParticipantSpec) -> None:
        await self._faults.step("room.join_visible")
        self.connected = True
        self.spec = participant
        self.attributes |= participant.attributes

    async def publish(self, rate: int) -> None:
        await self._faults.step("room.publish")

    async def wait_until_heard(self) -> None:
        await self._faults.step("heard")

    def listen(self, rate: int) -> None:
        self.listening = True

    def revealed(self) -> None:
        self.is_revealed = True

    async def until_connected(self) -> None:
        return

    def capture(self, pcm: bytes) -> None:
        self.captured += pcm

    def take_dropped(self) -> int:
        return 0

    async def send_dtmf(self, code: int, digit: str) -> None:
        await self._faults.step("room.send_dtmf")
        self.digits.append((code, digit))

    async def set_attributes(self, attributes: Mapping[str, str]) -> None:
        setting = asyncio.ensure_future(self._faults.step("room.set_attributes"))
        # As the gateway does: what is asked of a connection ends with it.
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait([setting, lost], return_when=asyncio.FIRST_COMPLETED)
            if not setting.done():
                raise Unavailable("attributes could not be set: the connection to LiveKit is lost")
            setting.result()
        finally:
            setting.cancel()
            lost.cancel()
        self.attributes |= attributes

    def goes(self, reason: EndReason) -> None:
        """The room, or the caller's place in it, is gone: as the gateway tells it."""
        self.connected = False
        self.lost.set()
        self.listener.room_ended(reason, "")

    async def leave(self) -> None:
        self.left += 1
        await self._faults.step("room.leave")
        self.connected = False


class FakeAdmin:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.undone: list[str] = []
        self.ghosts: list[tuple[str, str, str]] = []
        """Rooms, identities and call ids of callers that a dead process has left."""
        self.there: set[str] = set()
        """Ids of calls of other processes whose caller is in its room."""
        self.participants: dict[str, ParticipantSpec] = {}
        """By call id: callers of other processes."""
        self.removed: list[tuple[str, str]] = []
        self.revealed: dict[str, str] = {}
        self.taken: set[tuple[str, str]] = set()
        """Rooms and identities of participants that are not ours."""
        self.dispatched: list[tuple[str, list[str]]] = []
        """Rooms and names of agents that were dispatched again."""
        self.withdrawn: list[list[str]] = []
        self.present: dict[str, int] = {}
        self.sids = {"lobby": "RM1"}

    async def sid(self, room: str) -> str:
        await self._faults.step("admin.sid")
        return self.sids.get(room, "")

    async def check(self) -> None:
        await self._faults.step("admin.check")

    async def ensure_room(self, room: str, agents: Sequence[AgentDispatch]) -> str:
        await self._faults.step("admin.ensure_room")
        return room

    async def keep_room(self, room: str, agents: Sequence[AgentDispatch]) -> str:
        await self._faults.step("admin.keep_room")
        return room

    async def has(self, room: str, identity: str) -> bool:
        await self._faults.step("admin.has")
        return (room, identity) in self.taken

    async def remove(self, room: str, identity: str, sid: str = "") -> None:
        await self._faults.step("admin.remove")
        self.removed.append((room, identity))

    async def dispatch_again(
        self, room: str, agents: Sequence[AgentDispatch], others: Iterable[str], memory: Dispatched
    ) -> dict[str, int]:
        names = [*(agent.agent_name for agent in agents), *sorted(others)]
        self.dispatched.append((room, names))
        memory.ours |= {f"{name}-{len(self.dispatched)}" for name in names}
        await self._faults.step("admin.dispatch_again")
        return self.present

    async def withdraw(self, room: str, memory: Dispatched) -> None:
        await self._faults.step("admin.withdraw")
        self.withdrawn.append(sorted(memory.ours))
        memory.ours.clear()

    async def participant(self, room: str, identity: str, call_id: str) -> ParticipantSpec | None:
        await self._faults.step("admin.participant")
        return self.participants.get(call_id)

    async def has_call(self, room: str, identity: str, call_id: str) -> bool:
        await self._faults.step("admin.has_call")
        return call_id in self.there

    async def remove_call(self, room: str, identity: str, call_id: str) -> None:
        await self._faults.step("admin.remove_call")
        self.ghosts.append((room, identity, call_id))

    async def undo(self, setup: str) -> None:
        await self._faults.step("admin.undo")
        self.undone.append(setup)

    async def reveal(self, room: str, identity: str, attributes: Mapping[str, str]) -> None:
        await self._faults.step("admin.reveal")
        self.revealed |= attributes


class FakeWaiting:
    """`store.waiting`, shared by all the managers of a `World`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.entries: dict[str, WaitingCall] = {}

    async def insert(self, document: WaitingCall) -> None:
        await self._faults.step("waiting.insert")
        if document.id in self.entries:
            raise NameTaken(document.id)
        self.entries[document.id] = document

    async def replace(self, document: WaitingCall, expected: WaitingCall | None = None) -> bool:
        await self._faults.step("waiting.replace")
        if document.id not in self.entries or expected not in (None, self.entries[document.id]):
            return False
        self.entries[document.id] = document
        return True

    async def delete(self, document_id: str) -> bool:
        await self._faults.step("waiting.delete")
        return self.entries.pop(document_id, None) is not None

    async def take(self, document_id: str) -> WaitingCall | None:
        await self._faults.step("waiting.delete")
        return self.entries.pop(document_id, None)

    async def page(self, offset: int, limit: int, where: DocumentFilter = EVERY_DOCUMENT) -> Page[WaitingCall]:
        raise AssertionError("waiting calls are in no list")

    async def get(self, document_id: str) -> WaitingCall | None:
        await self._faults.step("waiting.get")
        return self.entries.get(document_id)

    async def find(self, name: str) -> WaitingCall | None:
        raise AssertionError("waiting calls have no names")

    async def list(self) -> list[WaitingCall]:
        return list(self.entries.values())


class FakeLifecycle:
    """Remembers the events, of all calls in the order in which they came."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.told: list[tuple[LifecycleEvent, CallRecord, dict[str, str]]] = []

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        await self._faults.step("lifecycle")
        self.told.append((event, record, dict(details)))

    @property
    def events(self) -> list[str]:
        return [event.value for event, _, _ in self.told]


class FakeHangUps(MemoryHangUps):
    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    async def put(self, hang_up: HangUp, leased_until: float) -> bool:
        await self._faults.step("hang_ups.put")
        return await super().put(hang_up, leased_until)

    async def withdraw(self, hang_up_id: str, now: float, until: float) -> None:
        await self._faults.step("hang_ups.withdraw")
        await super().withdraw(hang_up_id, now, until)

    async def retry(self, hang_up_id: str, at: float, attempts: int) -> None:
        await self._faults.step("hang_ups.retry")
        await super().retry(hang_up_id, at, attempts)

    async def settle(self, hang_up_id: str) -> None:
        await self._faults.step("hang_ups.settle")
        await super().settle(hang_up_id)


class FakeStore:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.waiting = FakeWaiting(faults)
        self.hang_ups = FakeHangUps(faults)
        self.records: dict[str, CallRecord] = {}
        self.saves = 0
        self.kept_leases: dict[str, float] = {}
        self.kept_addresses: dict[str, str] = {}
        self.kept_draining: set[str] = set()

    async def save_call(self, record: CallRecord) -> None:
        self.saves += 1
        await self._faults.step("store.save")
        await self._faults.step(f"store.save {record.state}")
        known = self.records.get(record.call_id)
        if known is None or known.end_reason is None or record.end_reason is not None:
            self.records[record.call_id] = record

    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool:
        await self._faults.step("store.save")
        await self._faults.step(f"store.save {after.state}")
        if self.records.get(after.call_id) != before:
            return False
        self.records[after.call_id] = after
        return True

    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool:
        self.saves += 1
        await self._faults.step("store.save")
        await self._faults.step(f"store.save {record.state}")
        known = self.records.get(record.call_id)
        if known is not None and known.end_reason is not None:
            return known.end_id == record.end_id != ""
        if expected not in (None, known):
            return False
        self.records[record.call_id] = record
        return True

    async def renew_lease(self, owner: str, at: float, address: str = "", draining: bool = False) -> None:
        await self._faults.step("store.renew")
        self.kept_leases[owner] = at
        self.kept_addresses[owner] = address
        (self.kept_draining.add if draining else self.kept_draining.discard)(owner)

    async def draining(self) -> set[str]:
        await self._faults.step("store.draining")
        return set(self.kept_draining)

    async def leases(self) -> dict[str, float]:
        await self._faults.step("store.leases")
        return dict(self.kept_leases)

    async def address_of(self, owner: str) -> str:
        await self._faults.step("store.address")
        return self.kept_addresses.get(owner, "") if owner in self.kept_leases else ""

    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool:
        there = owner in self.kept_leases and renewed_at in (None, self.kept_leases[owner])
        if there:
            del self.kept_leases[owner]
            self.kept_draining.discard(owner)
        return there

    async def get_call(self, call_id: str) -> CallRecord | None:
        return self.records.get(call_id)

    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        found = [record for record in self.records.values() if admits(where, record)]
        return sorted(found, key=lambda record: (-record.created_at, record.call_id))[:limit]

    async def forget_before(self, created_before: float) -> int:
        before = len(self.records)
        self.records = {
            call_id: record
            for call_id, record in self.records.items()
            if record.end_reason is None or record.created_at >= created_before
        }
        return before - len(self.records)


class FakeControl:
    """A carrier's REST API."""

    ends_with_stream = True
    stream_outlives_transfer = False

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.hung_up: list[str] = []
        self.brought_back: list[tuple[str, str, str]] = []
        """Ids of calls, URLs of documents and of streams."""
        self.said: list[str] = []
        """Sentences read out before a hang-up."""
        self.transferred: list[tuple[str, str]] = []
        self.dials: list[TransferDial] = []
        self.follows = True
        """Whether it tells what becomes of a transfer."""
        self.lives = True

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        await self._faults.step("control.hang_up")
        self.hung_up.append(call.id)
        if say:
            self.said.append(say)

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        await self._faults.step("control.transfer")
        self.transferred.append((call.id, dial.number))
        self.dials.append(dial)
        return self.follows

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        await self._faults.step("control.bring_back")
        self.brought_back.append((call.id, document_url, stream_url))

    async def is_live(self, call: CarrierCall) -> bool:
        await self._faults.step("control.is_live")
        return self.lives


@dataclass
class World:
    """One call's surroundings; `call` is not yet open. Make it inside a running loop."""

    direction: Direction = Direction.OUTBOUND
    limits: Limits = LIMITS
    faults: Faults = field(default_factory=Faults)
    metrics: Metrics = field(default_factory=Metrics)
    max_calls: int = 10
    joins_at_once: int = 8
    owner: str = "test"
    store: FakeStore = None  # type: ignore[assignment]
    """Another world's, for two processes that share one."""
    control: FakeControl | None = None
    watch: AgentWatch = field(default_factory=AgentWatch)
    agents: tuple[AgentDispatch, ...] = ()

    def __post_init__(self) -> None:
        self.rooms: list[FakeRoom] = []
        self.carrying: list[asyncio.Task[None]] = []
        self.admin = FakeAdmin(self.faults)
        self.store = self.store or FakeStore(self.faults)
        self.lifecycle = FakeLifecycle(self.faults)
        self.socket = FakeSocket(self.faults)
        self.finished: list[CallSession] = []
        self.joins = JoinAdmission(most=self.joins_at_once, patience=8, metrics=self.metrics)
        control: dict[Provider, CarrierControl] = {Provider.TWILIO: self.control} if self.control else {}
        # Its clock is the loop's: hours of tries pass in a test.
        self.hang_ups = HangUps(
            self.store.hang_ups, CARRIERS, control, self.metrics, lambda: asyncio.get_running_loop().time(), lambda: 0.0
        )
        self.parts = CallDependencies(
            admin=self.admin,
            store=self.store,
            metrics=self.metrics,
            limits=self.limits,
            joins=self.joins,
            new_room=self._new_room,
            carriers=CARRIERS,
            new_codec=lambda _: FakeCodec(),
            return_urls=lambda entry: ReturnAddresses(f"document {entry.stream - 1}", f"stream {entry.stream}"),
            owner=self.owner,
            lifecycle=self.lifecycle,
            watch=self.watch,
            control=control,
            hang_ups=self.hang_ups,
        )
        self.manager = CallManager(self.parts, self.max_calls)
        self.transfers = TransferReports(self.manager, self.parts)
        self.late = LateEnds(self.parts)
        self.log = structlog.testing.LogCapture()
        structlog.configure(processors=[structlog.contextvars.merge_contextvars, self.log])

    def _new_room(self, request: CallRequest, listener: RoomListener) -> FakeRoom:
        self.rooms.append(FakeRoom(self.faults, listener, request.participant))
        return self.rooms[-1]

    def request(self, call_id: str = "call_1") -> CallRequest:
        return CallRequest(
            call_id=call_id,
            provider=Provider.TWILIO,
            direction=self.direction,
            room="lobby",
            participant=ParticipantSpec("caller", attributes={"theirs": "kept"}),
            agents=self.agents,
        )

    def session(self) -> CallSession:
        return CallSession(self.request(), self.parts, self._finished)

    def _finished(self, call: CallSession) -> None:
        self.finished.append(call)
        if call.late_end is not None:
            self.late.keep(call.late_end)

    async def store_is_back(self) -> None:
        """What the store has not taken is written once more."""
        for step in [step for step in self.faults.planned if step.startswith("store.")]:
            del self.faults.planned[step]
        await self.late.close()

    @property
    def room(self) -> FakeRoom:
        return self.rooms[0]

    def endings(self) -> list[dict[str, object]]:
        return [dict(entry) for entry in self.log.entries if entry["event"] == "call ended"]

    def counted(self) -> dict[str, float]:
        """Ended calls by reason, as the metric has them."""
        (family,) = self.metrics.calls.collect()
        return {sample.labels["reason"]: sample.value for sample in family.samples if sample.name.endswith("_total")}

    def assert_ended_once(self, call: CallSession, reason: EndReason) -> None:
        """One reason everywhere, everything free."""
        assert call.finished.is_set()
        assert self.finished == [call]
        assert call.record.end_reason is reason
        assert self.counted() == {reason.value: 1.0}
        assert [entry["reason"] for entry in self.endings()] == [reason.value]
        assert self.room.left == 1
