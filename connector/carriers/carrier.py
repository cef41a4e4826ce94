"""The interface that every carrier implements. docs/adding-a-carrier.md explains it with a minimal carrier."""

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
from connector.model.call import TransferStatus
from connector.model.provider import Provider

LONGEST_FAREWELL = 400
"""Characters. Some carriers limit the size of the document; others fetch it from a URL that contains the sentence."""
PIN_TIMEOUT = 10
"""Seconds without a key press after which the carrier sends the digits entered so far."""


class Carrier(ABC):
    """One configured carrier: pure and stateless. `connector.carrier_table` lists one class for each carrier."""

    provider: ClassVar[Provider]
    """Name in the store, in URLs and in the API."""
    title: ClassVar[str]
    """Name shown to people."""
    signing_setting: ClassVar[str]
    """The setting needed to verify the carrier's requests, for error messages."""
    rest_settings: ClassVar[str]
    """The settings that the REST API needs, for error messages."""
    account_rules: ClassVar[AccountRules]

    document_type: ClassVar[str] = "text/xml"
    """Content-Type of the answer documents."""
    delivery_header: ClassVar[str] = ""
    """Header with the same value in each delivery of one request; empty if the carrier has none."""
    unsigned: ClassVar[str]
    """Error message for a request without a valid signature."""
    signs_handshakes: ClassVar[bool] = True
    """Whether the carrier signs the WebSocket handshake like its other requests."""

    holds_calls: ClassVar[bool] = False
    """Whether the phone may stay connected after its media stream has ended, or if it never started."""
    without_rest: ClassVar[str] = ""
    """The consequence of missing REST API settings, shown by `connector doctor`; empty: no warning is needed."""
    stream_outlives_document: bool = False
    """Whether the media stream runs in parallel with the answer document: a new document does not end it, and a request
    to the resume URL does not mean that it has ended."""
    stream_has_own_ids: ClassVar[bool] = False
    """Whether the stream may name the call by another id than the carrier's HTTP requests."""
    poll_seconds: int = 10
    """If the stream runs in parallel with the document: interval in which the carrier asks how the call goes on."""
    reopens_streams: ClassVar[bool] = False
    """Whether the carrier itself opens the URL of a lost media stream again. At other carriers a second socket with the
    same URL is a repeated webhook: it must not end the first one, even if that is silent (a held phone)."""
    cuts_queries: ClassVar[bool] = False
    """Whether the carrier removes the query from the stream URL."""
    needs_caller_id: ClassVar[bool] = False
    """Whether a transfer must set a caller id if the caller has no number (an app, SIP)."""
    longest_ring: ClassVar[int] = MAX_TIMEOUT
    """Maximum ringing time in a transfer, in seconds."""
    places_calls: ClassVar[bool] = False
    """Whether the connector places calls with the REST API and gets status callbacks at `<connect_url>/status`."""
    fetches_sentences: ClassVar[bool] = False
    """Whether the REST API accepts only the URL of a document: the carrier fetches the last sentence from us."""
    dials_sip: ClassVar[bool] = False
    """Whether connectors of this carrier may use mode `sip`."""
    kind_details: ClassVar[tuple[str, ...]] = ()
    """The kind details that LiveKit defines for participants of kind CONNECTOR."""
    default_greeting: ClassVar[bool] = False
    """Whether callers hear LiveKit's greeting if the settings have no greeting."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Creates the carrier from the settings."""
        return cls()

    @abstractmethod
    def accounts(self, settings: Settings) -> CarrierAccounts:
        """Returns the configured accounts."""

    def is_configured(self, settings: Settings) -> bool:
        """Whether any setting of this carrier is set."""
        return bool(self.accounts(settings).all)

    @abstractmethod
    def codec(self) -> Codec:
        """Creates the codec of one media stream."""

    def stream_url(self, origin: str, token: str) -> str:
        """Returns `wss://<origin>/<carrier>?ref=<token>`; `ws` if the origin is plain http. The token is in the path
        if the carrier removes queries."""
        scheme, rest = origin.split("://", 1)
        ref = f"/{token}" if self.cuts_queries else f"?ref={token}"
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/{self.provider.value}{ref}"

    @property
    def comes_back_within(self) -> float:
        """Seconds after a lost stream in which the carrier asks for the next document by itself."""
        return float(self.poll_seconds) if self.stream_outlives_document else 0.0

    # Complete documents that control a call.

    @abstractmethod
    def stream_answer(self, url: str, say: str = "") -> str:
        """Reads `say` aloud unless it is empty, then streams the call in both directions to `url` (ws or wss).

        The document ends in a way back: when the stream has ended, the carrier requests the resume URL, see
        `connector.carriers.resume_url`. If the stream runs in parallel with the document, the carrier requests that
        URL every `poll_seconds`."""

    @abstractmethod
    def hold(self, url: str, seconds: int) -> str:
        """Keeps the phone on the line for `seconds`, silently, then requests `url` with a POST. A stream that runs in
        parallel with the document goes on."""

    @abstractmethod
    def refusal(self, say: str) -> str:
        """Says a sentence, if there is one, and hangs up."""

    def hang_up(self) -> str:
        """Ends the call without a spoken sentence."""
        return self.refusal("")

    def farewell(self, say: str) -> str:
        """A refusal for an active call; the sentence is cut to LONGEST_FAREWELL."""
        return self.refusal(clean(say).strip()[:LONGEST_FAREWELL])

    @abstractmethod
    def reject(self) -> str:
        """Refuses a call before it is answered: it costs nothing, and the caller's network plays its own tone or
        announcement for an unanswered call. An answered call is hung up."""

    @abstractmethod
    def ask_pin(self, action_url: str, prompt: str, digits: int) -> str:
        """Asks for `digits` keys. The carrier sends the pressed keys, possibly none, to `action_url` (see
        `CallFacts.digits`). `#` ends the input early."""

    @abstractmethod
    def transfer_document(self, dial: TransferDial) -> str:
        """Connects the call with a number. When one side hangs up, the other side is hung up too."""

    # Reading the carrier's requests.

    @abstractmethod
    def call_facts(self, fields: Mapping[str, str]) -> CallFacts:
        """Reads the fields of a form or a query."""

    def wrong_event(self, body: bytes) -> str:
        """Returns an explanation for the operator if a document is no valid answer to this request; empty if it
        is."""
        return ""

    @abstractmethod
    def dial_over(self, fields: Mapping[str, str]) -> DialOver | None:
        """Reads a request to `TransferDial.action`; None if it does not report a dial."""

    @abstractmethod
    def dial_progress(self, fields: Mapping[str, str]) -> TransferStatus | None:
        """Reads a request to `TransferDial.progress`; None if nothing is new, or the action URL gets it too."""

    @abstractmethod
    def has_signed(self, secret: str, request: SignedRequest) -> bool:
        """Whether the request was signed with this account secret."""

    def check_ring_time(self, seconds: int) -> int:
        """Raises InvalidArgument for a ringing time that this carrier does not accept."""
        if not MIN_TIMEOUT <= seconds <= self.longest_ring:
            text = f"is not between {MIN_TIMEOUT} and {self.longest_ring} seconds at {self.provider.value}"
            raise InvalidArgument("timeout", text)
        return seconds


Carriers = Mapping[Provider, Carrier]
"""All carriers of a process, by name."""
