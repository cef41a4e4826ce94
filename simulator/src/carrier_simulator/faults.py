"""What the carrier writes into its debugger when the other side does something wrong.

The numbers are Twilio's, https://www.twilio.com/docs/api/errors, also for what the other two carriers say without a
number; from 100000 on they are Telnyx's, and stand in the error frames of its streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Fault(IntEnum):
    URL = 11100
    """A URL that is not complete, where no other is there to complete it."""
    HTTP_RETRIEVAL = 11200
    """The document could not be fetched: no connection, no answer in time, a status that is not 200."""
    DOCUMENT_PARSE = 12100
    """Not well-formed XML, or the root is not `Response`."""
    SCHEMA = 12200
    """A verb, noun or attribute that does not exist (or that the simulator does not play)."""
    CONTENT_TYPE = 12300
    CALLER_ID = 13214
    """A Dial without a caller id, or with one that is no number, for a caller who has no number either."""
    STREAM_HANDSHAKE = 31920
    """The WebSocket could not be opened: a bad URL, no connection, a status that is not 101."""
    STREAM_CLOSED = 31921
    """The server broke the WebSocket off, or closed it with a code that means trouble."""
    STREAM_FULL = 31931
    """More audio waits to be played than the carrier keeps."""
    STREAM_BINARY = 31950
    STREAM_MESSAGE = 31951
    """Text that is not one of the documented messages, to the letter."""
    SIP_UNREACHABLE = 32011
    """A SIP address led nowhere, or its answer was no use."""
    SIP_ADDRESS = 32110
    MALFORMED_FRAME = 100003
    INVALID_MEDIA = 100004
    RATE_LIMIT = 100005


@dataclass(frozen=True, slots=True)
class CarrierError:
    code: Fault
    message: str


class Refused(Exception):
    """Ends the carrier's current step; `error` is added to the call's list."""

    def __init__(self, code: Fault, message: str) -> None:
        super().__init__(f"{int(code)}: {message}")
        self.error = CarrierError(code, message)
