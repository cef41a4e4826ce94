"""Dependencies shared by all calls of a process, and the constants for the end of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from connector.call.media.from_carrier import MAX_AUDIO_AGE
from connector.call.ports import (
    Admin,
    CallStore,
    CarrierControl,
    CodecFactory,
    Lifecycle,
    ReturnUrls,
    RoomFactory,
    TransferUrls,
    no_return_urls,
    no_transfer_urls,
)
from connector.call.registry.hang_ups import HangUps
from connector.carriers.carrier import Carriers
from connector.errors import ConnectorError, ResourceExhausted
from connector.metrics import Metrics
from connector.model.call import AgentWatch, CallRecord
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.room.admission import JoinAdmission
from connector.storage.base import StoreError

STEP_TIMEOUT = 6.0
"""Maximum seconds for each step of the teardown; then the next step starts."""
BUSY = "We are sorry, all lines are busy. Please try again later. Goodbye."
"""Sentence for a caller whose call cannot be taken now."""
CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
CLOSE_INTERNAL = 1011
CLOSE_RESTART = 1012
"""The service restarts: the carrier should open the next stream."""
CLOSE_CODES = {EndReason.CALL_MISMATCH: CLOSE_POLICY, EndReason.INTERNAL_ERROR: CLOSE_INTERNAL}


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds; see `connector.config.Settings`."""

    connect_timeout: float
    answer_grace: float
    media_timeout: float
    max_duration: float
    max_audio_age: float = MAX_AUDIO_AGE
    resume_grace: float = 0.0
    """How long a lost stream may take to come back; 0: a lost stream ends the call."""


class NobodyAsked:
    """A `Lifecycle` that ignores all events."""

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        return


@dataclass(frozen=True, slots=True)
class CallDependencies:
    """Dependencies shared by all calls of a process."""

    admin: Admin
    store: CallStore
    metrics: Metrics
    limits: Limits
    joins: JoinAdmission
    new_room: RoomFactory
    carriers: Carriers
    new_codec: CodecFactory
    owner: str
    hang_ups: HangUps
    control: Mapping[Provider, CarrierControl] = field(default_factory=dict)
    """REST APIs of the carriers with configured credentials."""
    lifecycle: Lifecycle = field(default_factory=NobodyAsked)
    watch: AgentWatch = field(default_factory=AgentWatch)
    """Default rules for calls that nobody talks with, if neither the request nor the rule sets them."""
    sip_attributes: bool = False
    """Whether participants also get LiveKit SIP's attributes."""
    transfer_urls: TransferUrls = no_transfer_urls
    return_urls: ReturnUrls = no_return_urls


CARRIER_ENDS = {
    "busy": EndReason.BUSY,
    "no-answer": EndReason.NO_ANSWER,
    "canceled": EndReason.CANCELED,
    "failed": EndReason.CARRIER_FAILED,
    "completed": EndReason.CARRIER_HANGUP,
}
FINAL_STATUSES = frozenset(CARRIER_ENDS)
"""The last status of a call at the carrier; no other follows."""
IN_PROGRESS = "in-progress"
_BEFORE_THE_ANSWER = ("queued", "initiated", "ringing")


def further(known: str, reported: str) -> str:
    """The later of two statuses in the life of a call. Needed because reports can arrive out of order, and not every
    carrier numbers them."""
    return known if _progress(reported) < _progress(known) else reported


def _progress(status: str) -> int:
    if status in FINAL_STATUSES:
        return len(_BEFORE_THE_ANSWER) + 1
    if status in _BEFORE_THE_ANSWER:
        return _BEFORE_THE_ANSWER.index(status)
    return len(_BEFORE_THE_ANSWER) if status else -1


@dataclass(frozen=True, slots=True)
class End:
    reason: EndReason
    detail: str
    close_code: int
    say: str = ""
    """Sentence that is read out to the phone before it is hung up; may be empty. Needs the carrier's REST API."""


def why_not_opened(error: BaseException) -> tuple[EndReason, str]:
    """End reason and detail for a call whose creation failed with `error`."""
    if isinstance(error, StoreError):
        return EndReason.INTERNAL_ERROR, error.message
    if isinstance(error, ResourceExhausted):
        return EndReason.OVERLOADED, error.message
    if isinstance(error, ConnectorError):
        return EndReason.LIVEKIT_UNAVAILABLE, error.message
    if isinstance(error, asyncio.CancelledError):
        return EndReason.ENDED_BY_API, "the client cancelled the request"
    return EndReason.INTERNAL_ERROR, repr(error)
