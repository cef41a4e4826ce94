"""What the connector asks of a carrier. docs/adding-a-carrier.md walks through the smallest one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

from connector.accounts import AccountRules, CarrierAccounts
from connector.carriers.codec import Codec
from connector.carriers.facts import CallFacts
from connector.carriers.signatures import SignedRequest
from connector.carriers.transfers import MAX_TIMEOUT, MIN_TIMEOUT, DialOver, TransferDial
from connector.carriers.xml import clean
from connector.config import Settings
from connector.errors import InvalidArgument
from connector.model import Provider, TransferStatus

LONGEST_FAREWELL = 400
"""Characters. Some carriers bound the whole document, some are given an address that holds the sentence."""
PIN_TIMEOUT = 10
"""Seconds without a key after which the digits so far are sent."""


class Carrier(ABC):
    """One carrier, as it is configured: pure, and without state. The table (`connector.carrier_table`) has one each."""

    provider: ClassVar[Provider]
    """Its name in the store, in URLs and in the API."""
    title: ClassVar[str]
    """Its name for people."""
    signing_setting: ClassVar[str]
    """The setting without which its requests cannot be checked, for people who read an error."""
    rest_settings: ClassVar[str]
    """The settings that its REST API needs, for people who read an error."""
    account_rules: ClassVar[AccountRules]

    document_type: ClassVar[str] = "text/xml"
    """The Content-Type of its answer documents."""
    delivery_header: ClassVar[str] = ""
    """The header that is the same for each delivery of one request, where it sends one."""
    unsigned: ClassVar[str]
    """The error for a request without a valid signature."""
    signs_handshakes: ClassVar[bool] = True
    """Whether it signs the WebSocket's handshake as it signs its other requests."""

    holds_calls: ClassVar[bool] = False
    """Whether a phone may stay on the line when its media stream is over, or never came."""
    without_rest: ClassVar[str] = ""
    """What goes wrong without the REST API's settings, for `connector doctor`; empty: nothing that needs a warning."""
    stream_outlives_document: ClassVar[bool] = False
    """Whether the media stream runs beside the answer document, so that another document does not end it."""
    cuts_queries: ClassVar[bool] = False
    """Whether it cuts the query of a stream's URL off."""
    needs_caller_id: ClassVar[bool] = False
    """Whether a transfer of a caller without a number (an app, SIP) has to say a caller id."""
    longest_ring: ClassVar[int] = MAX_TIMEOUT
    """Seconds of ringing that it takes in a transfer."""
    places_calls: ClassVar[bool] = False
    """Whether the connector places calls by its REST API, and is told of their progress at `<connect_url>/status`."""
    fetches_sentences: ClassVar[bool] = False
    """Whether its REST API takes the address of a document alone: the sentence before a hang-up is fetched from us."""
    dials_sip: ClassVar[bool] = False
    """Whether its connectors may be in mode `sip`."""
    kind_details: ClassVar[tuple[str, ...]] = ()
    """LiveKit's own details for a participant of kind CONNECTOR."""
    default_greeting: ClassVar[bool] = False
    """Whether its calls hear LiveKit's greeting where the settings have none."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The carrier as the settings have it."""
        return cls()

    @abstractmethod
    def accounts(self, settings: Settings) -> CarrierAccounts:
        """Its accounts."""

    def is_configured(self, settings: Settings) -> bool:
        """Whether any of its settings is set."""
        return bool(self.accounts(settings).all)

    @abstractmethod
    def codec(self) -> Codec:
        """For one media stream."""

    def stream_url(self, origin: str, token: str) -> str:
        """`wss://<origin>/<carrier>?ref=<token>`, with the token in the path where the query would be cut off; `ws`
        where the origin is plain http."""
        scheme, rest = origin.split("://", 1)
        ref = f"/{token}" if self.cuts_queries else f"?ref={token}"
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/{self.provider.value}{ref}"

    # The documents that tell the carrier what to do with a call, each one whole.

    @abstractmethod
    def stream_answer(self, url: str, say: str = "") -> str:
        """Read `say` out if there is anything to say, then stream the call both ways to `url` (ws or wss)."""

    @abstractmethod
    def refusal(self, say: str) -> str:
        """Say a sentence and hang up; without a sentence only hang up."""

    def hang_up(self) -> str:
        """End the call without a word."""
        return self.refusal("")

    def farewell(self, say: str) -> str:
        """A refusal for a call that is going on: the sentence is cut where it is longer than a caller would listen
        to."""
        return self.refusal(clean(say).strip()[:LONGEST_FAREWELL])

    @abstractmethod
    def reject(self) -> str:
        """Refuse a call before it is answered: nobody pays for it, and the caller hears what their own network has for
        a number that does not answer. A call that was answered is hung up."""

    @abstractmethod
    def ask_pin(self, action_url: str, prompt: str, digits: int) -> str:
        """Ask for `digits` keys; the carrier sends what was pressed, also nothing, to `action_url` (see
        `CallFacts.digits`). `#` ends the input early."""

    @abstractmethod
    def transfer_document(self, dial: TransferDial) -> str:
        """Connect the call with a number. When one of the two hangs up, so is the other."""

    # What its requests tell.

    @abstractmethod
    def call_facts(self, fields: Mapping[str, str]) -> CallFacts:
        """From the fields of a form or a query."""

    def wrong_event(self, body: bytes) -> str:
        """Why this request is none that a document answers, as a person reads it who has to mend it; empty when it is
        one."""
        return ""

    @abstractmethod
    def dial_over(self, fields: Mapping[str, str]) -> DialOver | None:
        """What a request to `TransferDial.action` tells; None when it tells of no dial."""

    @abstractmethod
    def dial_progress(self, fields: Mapping[str, str]) -> TransferStatus | None:
        """What a request to `TransferDial.progress` tells; None for what is no news or comes at the action URL too."""

    @abstractmethod
    def has_signed(self, secret: str, request: SignedRequest) -> bool:
        """Whether the request was signed with this secret of an account."""

    def check_ring_time(self, seconds: int) -> int:
        """InvalidArgument for a time of ringing that this carrier does not take."""
        if not MIN_TIMEOUT <= seconds <= self.longest_ring:
            text = f"is not between {MIN_TIMEOUT} and {self.longest_ring} seconds at {self.provider.value}"
            raise InvalidArgument("timeout", text)
        return seconds


Carriers = Mapping[Provider, Carrier]
"""Every carrier of a process, by its name."""
