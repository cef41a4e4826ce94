"""The interface of a store, independent of the database."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from connector.errors import ConnectorError
from connector.model.call import CallFilter, CallRecord, HangUp, WaitingCall
from connector.model.connector import ConnectorEntry, SipNumber
from connector.model.rule import PinLock, RoomType, RoutingRule
from connector.model.webhook import Attempt, Delivery, SigningKey, WebhookEndpoint

EVERY_CALL = CallFilter()
DEFAULT_PREFIX = "connector:"
"""Prefix of all keys in Redis: a LiveKit server, or a second connector service, may use the same database."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list, and the length of the whole list."""

    items: list[Item]
    total: int


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """A filter for documents; see `labels_of` and `text_of`. Empty fields do not restrict."""

    labels: tuple[tuple[str, ...], ...] = ()
    """The document must have at least one label of each group."""
    texts: tuple[str, ...] = ()
    """The document's text must contain at least one of these; case-insensitive."""


EVERY_DOCUMENT = DocumentFilter()


class StoreError(ConnectorError):
    """The store cannot be opened or used; the message names the store and the reason."""

    twirp_code = "unavailable"
    grpc_code = "UNAVAILABLE"
    http_status = 503


class StoreTooNew(StoreError):
    """A newer connector has used the store; the message says how to continue."""


class NameTaken(StoreError):
    """Another document already has one of this document's unique names; `name` is the first such name."""

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
    """A key-value collection with a unique id and optional unique secondary keys, the names; see `names_of`. Each
    method is atomic and immediately visible to every process that shares the store. Every method raises StoreError if
    the store fails."""

    async def insert(self, document: T) -> None:
        """Inserts it. Raises NameTaken if its id or one of its names exists; in that case nothing is changed."""
        ...

    async def replace(self, document: T, expected: T | None = None) -> bool:
        """Replaces the document with the same id, including its names. Returns False if there is none, or if the
        stored one is no longer equal to `expected` (optimistic locking: a concurrent change is never overwritten).
        Raises NameTaken as above."""
        ...

    async def delete(self, document_id: str) -> bool:
        """Deletes it. Of several concurrent callers, exactly one gets True."""
        ...

    async def take(self, document_id: str) -> T | None:
        """Deletes the document and returns its last version. Of several concurrent callers, exactly one gets it."""
        ...

    async def get(self, document_id: str) -> T | None: ...
    async def find(self, name: str) -> T | None:
        """Returns the document with this unique name, or None."""
        ...

    async def list(self) -> list[T]:
        """Returns all documents, newest first."""
        ...

    async def page(self, offset: int, limit: int, where: DocumentFilter = EVERY_DOCUMENT) -> Page[T]:
        """Returns at most `limit` matching documents, newest first, starting at position `offset`, and the number of
        all matches. The store filters and counts; only the documents of the page are read."""
        ...


class DeliveryQueue(Protocol):
    """Queue of events for customers' servers. It is persistent: it survives a restart of all processes."""

    async def put(self, deliveries: Sequence[Delivery]) -> None:
        """Adds all or none. Deliveries of one call to one endpoint are sent in the order in which they were added."""
        ...

    async def take(self, now: float, leased_until: float, limit: int, busy: Several[str] = ()) -> list[Delivery]:
        """Leases at most `limit` due deliveries until `leased_until` (Unix time), longest due first; for each endpoint
        and call only the first in order. Nobody else gets them during the lease. Endpoints with ids in `busy` are
        skipped: a slow server must not delay the deliveries to other servers."""
        ...

    async def settle(self, attempt: Attempt, retry_at: float | None) -> None:
        """Logs an attempt and schedules a retry at `retry_at`. None: it was delivered or given up, and the next
        delivery of the same endpoint and call may be sent."""
        ...

    async def next_due(self, busy: Several[str] = ()) -> float | None:
        """Returns the Unix time when the next delivery is due, possibly in the past; None if the queue is empty.
        Endpoints in `busy` are ignored."""
        ...

    async def pending(self) -> int:
        """Returns the number of unsettled deliveries, including leased ones."""
        ...

    async def drop_endpoint(self, endpoint_id: str) -> int:
        """Deletes the deliveries to a deleted endpoint; returns their number."""
        ...

    async def attempts(self, limit: int = 50, endpoint_id: str = "", call_id: str = "") -> list[Attempt]:
        """Returns the delivery log, newest first; empty strings do not restrict."""
        ...

    async def forget_before(self, at: float) -> int:
        """Deletes log entries older than this Unix time; returns their number."""
        ...


class HangUpQueue(Protocol):
    """Persistent queue of phones to hang up. Every method raises StoreError if the store fails."""

    async def put(self, hang_up: HangUp, leased_until: float) -> bool:
        """Adds a hang-up and leases it to the caller until `leased_until` (Unix time). Returns False if it is already
        queued or was withdrawn."""
        ...

    async def withdraw(self, hang_up_id: str, now: float, until: float) -> None:
        """Deletes it and makes `put` refuse it later. The refusal lasts at least until `until`; the first `withdraw`
        of another hang-up after that removes it."""
        ...

    async def allow(self, hang_up_id: str) -> None:
        """Cancels a withdrawal: `put` accepts it again."""
        ...

    async def take(self, now: float, leased_until: float, limit: int) -> list[HangUp]:
        """Leases at most `limit` due hang-ups until `leased_until`, longest due first."""
        ...

    async def retry(self, hang_up_id: str, at: float, attempts: int) -> None:
        """Schedules a retry at `at`, after `attempts` attempts. Does nothing if it is settled."""
        ...

    async def settle(self, hang_up_id: str) -> None:
        """Deletes it: it is done or given up. It is no error if it does not exist."""
        ...

    async def next_due(self) -> float | None:
        """Returns the Unix time when the next one is due, possibly in the past; None if the queue is empty."""
        ...

    async def pending(self) -> int:
        """Returns the number of queued hang-ups, including leased ones."""
        ...


def names_of(document: object) -> tuple[str, ...]:
    """Returns the secondary keys of a document; they are unique in its collection."""
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
    """Returns the labels for `DocumentFilter.labels`."""
    labels = [f"id:{document.id}"]
    if isinstance(document, RoutingRule):
        labels.append(f"type:{document.type.value}")
        labels.append(f"room:{document.room.type.value if document.room else RoomType.DYNAMIC.value}")
    return tuple(labels)


def text_of(document: Document) -> str:
    """Returns the text that `DocumentFilter.texts` searches."""
    match document:
        case RoutingRule():
            return " ".join((document.name, *document.numbers))
        case WebhookEndpoint():
            return document.url
        case _:
            return ""


def index_text(document: Document) -> str:
    """Returns the text that a store searches: the labels, one per line, an empty line, and the text in lower case."""
    return "\n".join(("", *labels_of(document), "", text_of(document).lower()))


def part_of_index(label: str) -> str:
    """Returns the form of a label in `index_text`."""
    return f"\n{label}\n"


class Store(Protocol):
    """All persistent data. Every method raises StoreError if the store fails."""

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
        """A stream claims a call with `take`; a fetch extends the deadline with `replace`."""
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
        """Inserts or replaces a record. The record of an ended call is never replaced by one of a live call."""
        ...

    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool:
        """Replaces `before` by `after`, or inserts `after` if `before` is None. Returns False and changes nothing if
        the stored record is not equal to `before`."""
        ...

    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool:
        """Writes the record of an ended call. Returns True for exactly one end of each call; the caller that gets True
        reports and counts it. Returns False and changes nothing if the call has already ended, or if the stored record
        is not equal to `expected`.

        A retry is safe if the response was lost: an end with the same `end_id` gets True again."""
        ...

    async def get_call(self, call_id: str) -> CallRecord | None: ...
    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        """Returns at most `limit` matching records, newest first."""
        ...

    async def page_calls(self, offset: int, limit: int, where: CallFilter = EVERY_CALL) -> Page[CallRecord]:
        """Returns at most `limit` matching records, newest first, starting at position `offset`, and the number of all
        matches. The store filters and counts; only the records of the page are read."""
        ...

    async def reseal(self) -> int:
        """Seals, with the newest secret, values that are plain text or sealed with an older secret. Returns the number
        of changed documents."""
        ...

    async def renew_lease(self, owner: str, at: float, address: str = "", draining: bool = False) -> None:
        """Renews the lease of a process at a Unix time: it and all its calls are alive. `address`: the URL at which it
        answers the other processes; empty: none. `draining`: it is about to stop, and takes no calls over."""
        ...

    async def leases(self) -> dict[str, float]:
        """Returns the time of the last renewal for each process, by its own clock."""
        ...

    async def draining(self) -> set[str]:
        """Returns the processes whose last renewal says that they are about to stop."""
        ...

    async def address_of(self, owner: str) -> str:
        """Returns the address in the lease of a process; empty if it has none, or no lease. The process may be dead."""
        ...

    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool:
        """Deletes the lease of a process; with `renewed_at`, only if it was last renewed at that time. Returns whether
        it was deleted."""
        ...

    async def weaknesses(self) -> list[tuple[str, str]]:
        """Returns settings of the database that can cause data loss, each with its remedy."""
        ...

    async def forget_before(self, created_before: float) -> int:
        """Deletes ended calls created before this Unix time; returns their number."""
        ...
