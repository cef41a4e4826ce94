"""What a store must do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from connector.errors import ConnectorError
from connector.model import (
    Attempt,
    CallFilter,
    CallRecord,
    ConnectorEntry,
    Delivery,
    HangUp,
    PinLock,
    RoomType,
    RoutingRule,
    SigningKey,
    SipNumber,
    WaitingCall,
    WebhookEndpoint,
)

EVERY_CALL = CallFilter()
DEFAULT_PREFIX = "connector:"
"""With which every key in Redis begins: a LiveKit server may keep its own in the same database, and so may another
service of this kind."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of a list, and how long the whole list is."""

    items: list[Item]
    total: int


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Which documents to find; see `labels_of` and `text_of`. What is empty does not restrict."""

    labels: tuple[tuple[str, ...], ...] = ()
    """Of each group the document has at least one."""
    texts: tuple[str, ...] = ()
    """At least one of them is a part of the document's text; letters of either case."""


EVERY_DOCUMENT = DocumentFilter()


class StoreError(ConnectorError):
    """The store cannot be opened or used; the message says which and why."""

    twirp_code = "unavailable"
    grpc_code = "UNAVAILABLE"
    http_status = 503


class StoreTooNew(StoreError):
    """A newer connector has used the store; the message says what to do."""


class NameTaken(StoreError):
    """Another document has one of this one's unique names; `name` is the first of them."""

    twirp_code = "already_exists"
    grpc_code = "ALREADY_EXISTS"
    http_status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is taken")
        self.name = name


class Document(Protocol):
    """A frozen dataclass of `connector.model`."""

    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> float: ...


T = TypeVar("T", bound=Document)


class Collection(Protocol[T]):
    """Documents by id, and by names that no two of them share; see `names_of`. Each method is one atomic step,
    seen at once by every process that shares the store. Every method raises StoreError when the store fails."""

    async def insert(self, document: T) -> None:
        """NameTaken when its id or one of its names is; then nothing is changed."""
        ...

    async def replace(self, document: T, expected: T | None = None) -> bool:
        """Put it in the place of the one with its id, names too. False when there is none, or, with `expected`, when
        another one is there by now than `expected`: what somebody else wrote meanwhile is not undone by a change of
        what was read before. NameTaken as above."""
        ...

    async def delete(self, document_id: str) -> bool:
        """Whether this call deleted it: of several that try at once, exactly one is told True."""
        ...

    async def take(self, document_id: str) -> T | None:
        """Delete it and return it as it was at that moment: of several that try at once, exactly one gets it."""
        ...

    async def get(self, document_id: str) -> T | None: ...
    async def find(self, name: str) -> T | None:
        """The document that has this unique name."""
        ...

    async def list(self) -> list[T]:
        """All, newest first."""
        ...

    async def page(self, offset: int, limit: int, where: DocumentFilter = EVERY_DOCUMENT) -> Page[T]:
        """At most `limit` of those that the filter admits, newest first, from place `offset` on, and how many there
        are. The store filters and counts: only what is on the page is read."""
        ...


class DeliveryQueue(Protocol):
    """Events on their way to customers' servers. Survives every process."""

    async def put(self, deliveries: Sequence[Delivery]) -> None:
        """All or none. Deliveries of one endpoint and call leave in the order in which they were put."""
        ...

    async def take(self, now: float, leased_until: float, limit: int, busy: Several[str] = ()) -> list[Delivery]:
        """Lease at most `limit` that are due, the longest due first, at most one of each endpoint and call, each
        the first of its line. Nobody else gets them before `leased_until` has passed. Endpoints whose ids are in
        `busy` are passed over, however long theirs are due: a slow server must not hold the others up."""
        ...

    async def settle(self, attempt: Attempt, retry_at: float | None) -> None:
        """Log an attempt; try again at `retry_at`, or let the next in line go (None: delivered, or given up)."""
        ...

    async def next_due(self, busy: Several[str] = ()) -> float | None:
        """When the next one may be taken, a time that may have passed; None when none waits. Endpoints in `busy` do
        not count."""
        ...

    async def pending(self) -> int:
        """How many are not settled yet, leased ones included."""
        ...

    async def drop_endpoint(self, endpoint_id: str) -> int:
        """Forget what waits for an endpoint that is gone; how many."""
        ...

    async def attempts(self, limit: int = 50, endpoint_id: str = "", call_id: str = "") -> list[Attempt]:
        """The delivery log, newest first; empty strings do not restrict."""
        ...

    async def forget_before(self, at: float) -> int:
        """Delete log lines older than this Unix time; the number of them."""
        ...


class HangUpQueue(Protocol):
    """Phones that are to be hung up. Survives every process. Every method raises StoreError when the store fails."""

    async def put(self, hang_up: HangUp, leased_until: float) -> bool:
        """Keep one, which nobody else gets before `leased_until`, Unix time. False when it is kept already, or
        withdrawn."""
        ...

    async def withdraw(self, hang_up_id: str, now: float, until: float) -> None:
        """Forget it, whether it is kept or comes later: `put` refuses it, as long as nobody calls `withdraw` for
        another one after `until`."""
        ...

    async def allow(self, hang_up_id: str) -> None:
        """`put` takes it again."""
        ...

    async def take(self, now: float, leased_until: float, limit: int) -> list[HangUp]:
        """Lease at most `limit` that are due, the longest due first: nobody else gets them before `leased_until`."""
        ...

    async def retry(self, hang_up_id: str, at: float, attempts: int) -> None:
        """It is due again at `at`; `attempts` tries have been made. One that is settled stays so."""
        ...

    async def settle(self, hang_up_id: str) -> None:
        """Forget it: it is done, or given up. One that is not there is no error."""
        ...

    async def next_due(self) -> float | None:
        """When the next one may be taken, a time that may have passed; None when none waits."""
        ...

    async def pending(self) -> int:
        """How many are kept, leased ones included."""
        ...


def names_of(document: object) -> tuple[str, ...]:
    """The names under which a document can be found, and which no other of its collection may have."""
    match document:
        case ConnectorEntry():
            return (f"key:{document.key_hash}",)
        case RoutingRule():
            return tuple(f"{document.type.value}:{number}" for number in document.numbers)
        case WaitingCall() if document.place:
            return (document.place,)
        case SigningKey():
            return () if document.retired_at else ("in use",)
        case _:
            return ()


def labels_of(document: Document) -> tuple[str, ...]:
    """What lists of documents can be narrowed by, beside a text."""
    labels = [f"id:{document.id}"]
    if isinstance(document, RoutingRule):
        labels.append(f"type:{document.type.value}")
        labels.append(f"room:{document.room.type.value if document.room else RoomType.DYNAMIC.value}")
    return tuple(labels)


def text_of(document: Document) -> str:
    """What `DocumentFilter.texts` looks through."""
    match document:
        case RoutingRule():
            return " ".join((document.name, *document.numbers))
        case WebhookEndpoint():
            return document.url
        case _:
            return ""


def index_text(document: Document) -> str:
    """The labels, one a line, an empty line, and the text in small letters: what a store looks through by itself."""
    return "\n".join(("", *labels_of(document), "", text_of(document).lower()))


def part_of_index(label: str) -> str:
    """How a label stands in `index_text`."""
    return f"\n{label}\n"


class Store(Protocol):
    """Everything that is kept. Every method raises StoreError when the store fails."""

    @property
    def connectors(self) -> Collection[ConnectorEntry]: ...
    @property
    def rules(self) -> Collection[RoutingRule]: ...
    @property
    def endpoints(self) -> Collection[WebhookEndpoint]: ...
    @property
    def keys(self) -> Collection[SigningKey]: ...
    @property
    def sip_numbers(self) -> Collection[SipNumber]: ...
    @property
    def waiting(self) -> Collection[WaitingCall]:
        """A claim is a `take` that returns the call; a fetch that extends the wait is a `replace`."""
        ...

    @property
    def pin_locks(self) -> Collection[PinLock]: ...
    @property
    def deliveries(self) -> DeliveryQueue: ...
    @property
    def hang_ups(self) -> HangUpQueue: ...

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def save_call(self, record: CallRecord) -> None:
        """Insert or replace. A record that has ended is never replaced by one that has not."""
        ...

    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool:
        """Replace `before` by `after`, or insert `after` where `before` is None. False when anything else than
        `before` is there by now, and then nothing is changed."""
        ...

    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool:
        """Write the record of a call that has ended. True for exactly one end of each call, which stands: who is told
        True tells of it and counts it. False when the call has ended already, or, with `expected`, when anything else
        is there by now; then nothing is changed.

        A step whose answer was lost may be tried again: the same end, by its `end_id`, is told True again."""
        ...

    async def get_call(self, call_id: str) -> CallRecord | None: ...
    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        """Newest first, at most `limit`."""
        ...

    async def page_calls(self, offset: int, limit: int, where: CallFilter = EVERY_CALL) -> Page[CallRecord]:
        """At most `limit` of those that the filter admits, newest first, from place `offset` on, and how many there
        are. The store filters and counts: only what is on the page is read."""
        ...

    async def reseal(self) -> int:
        """Write anew what is plain, or sealed with a secret before the newest; how many documents that were."""
        ...

    async def renew_lease(self, owner: str, at: float) -> None:
        """A process says, at a Unix time, that it is alive, and all its calls with it."""
        ...

    async def leases(self) -> dict[str, float]:
        """When each process has said so last, by its own clock."""
        ...

    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool:
        """Forget a process's lease, or only the one that was renewed last at `renewed_at`; whether it was there."""
        ...

    async def weaknesses(self) -> list[tuple[str, str]]:
        """What in its own settings could lose what is kept, and how to mend it."""
        ...

    async def forget_before(self, created_before: float) -> int:
        """Delete ended calls created before this Unix time; the number of them."""
        ...
