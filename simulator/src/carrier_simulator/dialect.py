"""What sets one carrier apart from the others, in one object that a call asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from carrier_simulator.faults import CarrierError
from carrier_simulator.jitter import Delays, Jitter
from carrier_simulator.record import CallRecord
from carrier_simulator.sip import SipClient
from carrier_simulator.terms import CallOptions, CallStatus, Outcome
from carrier_simulator.verbs import Stream, Verb
from carrier_simulator.web import Form, Web
from carrier_simulator.wire import Wire


class Dialect(Protocol):
    name: str
    account_id: str

    def call_id(self) -> str:
        """An id for a new call."""
        ...

    def form(self, call: CallRecord) -> Form:
        """The fields of every request about this call."""
        ...

    def gathered(self, digits: str) -> Form:
        """The fields that tell which digits were pressed."""
        ...

    def dialled(self, leg_id: str, status: CallStatus, seconds: int) -> Form:
        """The fields with the outcome of the call to the other number."""
        ...

    def leg_notice(self, call: CallRecord, leg_id: str, address: str, status: CallStatus) -> Form:
        """The other side's call rings, or was answered."""
        ...

    def hung_up(self) -> dict[str, str]:
        """The fields that tell that the caller has hung up, in place of those of a call that goes on."""
        ...

    def caller_id_fault(self, call: CallRecord, caller_id: str) -> CarrierError | None:
        """Why the carrier would not dial somebody for this caller under this caller id; None: it does."""
        ...

    def streamed(self, stream_id: str) -> Form:
        """The fields that tell which stream has ended, for a document that goes on elsewhere."""
        ...

    def stream_notice(self, call: CallRecord, stream_id: str, event: str) -> Form:
        """A stream has `started`, has `stopped`, was `lost` after it had started, or could not be opened (`error`)."""
        ...

    def notice(self, call: CallRecord, sequence: int) -> Form:
        """The call has the status that it has now."""
        ...

    def parse(self, body: bytes, content_type: str) -> Sequence[Verb]:
        """Raises Refused for values that the carrier does not accept."""
        ...

    def wire(self, call: CallRecord, stream: Stream) -> Wire: ...


@dataclass(frozen=True, slots=True)
class Office:
    """The carrier as its calls see it."""

    dialect: Dialect
    web: Web
    options: CallOptions
    outcome_of: Callable[[str], Outcome]
    """What happens when this number is called."""
    sip: SipClient = field(default_factory=SipClient)
    jitter: Jitter | None = None
    _numbers: Iterator[int] = field(default_factory=count)

    def delays_of_a_call(self) -> Delays | None:
        """Of the next call: the first, the second, …"""
        number = next(self._numbers)
        return self.jitter.delays(f"call {number}") if self.jitter else None
