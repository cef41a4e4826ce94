"""What a document asks the carrier to do, whichever carrier's XML it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from carrier_simulator.sounds import MULAW, Sound


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Play:
    url: str


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str
    """rejected or busy"""


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str
    method: str


class Takes(Enum):
    """What the server may send to be played."""

    SAMPLES = "samples"
    FILES = "files"
    """Whole encoded ones."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Stream:
    """A media stream, as the document wants it."""

    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    speaks: Sound = MULAW
    plays: Sound = MULAW
    echoes: bool = False
    """The audio played to the caller is wanted as a second track."""
    takes: Takes = Takes.SAMPLES
    callback: str = ""
    """Told when the stream starts and stops; empty: nobody is."""
    callback_method: str = "POST"
    reconnects: int = 0
    """How often the carrier opens the same URL again by itself, when the socket could not be opened or was lost."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Stream, and go on with the document when the stream has ended, in whatever way."""

    stream: Stream
    action: str = ""
    """Requested when the stream ends; empty: the document goes on."""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a stream and go on with the document at once; it lasts as long as the call."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Gather:
    """Ask for digits. With none pressed the document goes on; else `action` is requested with them."""

    prompts: tuple[Say | Pause | Play, ...]
    action: str
    """Empty: the document's own URL."""
    method: str
    most: int | None
    finish_on: str
    first_timeout: float
    """Seconds to wait for the first digit, after the prompts."""
    next_timeout: float
    asks_when_empty: bool = False
    """Request `action` also when no digit was pressed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody to be called: a number, or a SIP address with the credentials for it."""

    address: str
    username: str = ""
    password: str = field(default="", repr=False)
    callback: str = ""
    """Told of the target's own call; empty: nobody is."""
    callback_events: frozenset[str] = frozenset({"completed"})
    callback_method: str = "POST"


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect the caller with somebody else; `action` is requested when that is over."""

    targets: tuple[Target, ...]
    action: str
    """Empty: the document goes on."""
    method: str
    timeout: float
    """Seconds of ringing."""
    caller_id: str


Verb = Say | Pause | Play | Hangup | Reject | Redirect | Connect | Start | Gather | Dial
