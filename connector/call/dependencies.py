"""What every call of a process shares, and the words for its end."""

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
    RoomFactory,
    TransferUrls,
    no_transfer_urls,
)
from connector.call.registry.hang_ups import HangUps
from connector.carriers.carrier import Carriers
from connector.errors import ConnectorError, ResourceExhausted
from connector.metrics import Metrics
from connector.model import AgentWatch, CallRecord, EndReason, LifecycleEvent, Provider
from connector.room.admission import JoinAdmission
from connector.storage.base import StoreError

STEP_TIMEOUT = 6.0
"""Seconds that any one step of the teardown may take before the next one starts."""
BUSY = "We are sorry, all lines are busy. Please try again later. Goodbye."
"""What a caller hears whom nobody can take now."""
CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
CLOSE_INTERNAL = 1011
CLOSE_CODES = {EndReason.CALL_MISMATCH: CLOSE_POLICY, EndReason.INTERNAL_ERROR: CLOSE_INTERNAL}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; see `connector.config.Settings`."""

    connect_timeout: float
    answer_grace: float
    media_timeout: float
    max_duration: float
    max_audio_age: float = MAX_AUDIO_AGE


class NobodyAsked:
    """A `Lifecycle` where no one is to be told."""

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        return


@dataclass(frozen=True, slots=True)
class CallDependencies:
    """What every call of a process shares."""

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
    """Carriers whose REST API can be used; empty where no credentials are configured."""
    lifecycle: Lifecycle = field(default_factory=NobodyAsked)
    watch: AgentWatch = field(default_factory=AgentWatch)
    """What is done about a call that nobody talks with, where neither its request nor its rule says so."""
    sip_attributes: bool = False
    """Whether participants carry LiveKit SIP's attributes beside ours."""
    transfer_urls: TransferUrls = no_transfer_urls


CARRIER_ENDS = {
    "busy": EndReason.BUSY,
    "no-answer": EndReason.NO_ANSWER,
    "canceled": EndReason.CANCELED,
    "failed": EndReason.CARRIER_FAILED,
    "completed": EndReason.CARRIER_HANGUP,
}
FINAL_STATUSES = frozenset(CARRIER_ENDS)
"""The carrier's statuses after which nothing comes."""
IN_PROGRESS = "in-progress"
_BEFORE_THE_ANSWER = ("queued", "initiated", "ringing")


def further(known: str, reported: str) -> str:
    """The status that is further on: reports overtake one another, and not every carrier numbers them."""
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
    """Read out to the phone before it is hung up; empty: nothing is. Needs the carrier's REST API."""


def why_not_opened(error: BaseException) -> tuple[EndReason, str]:
    """The end of a call whose creation failed with `error`."""
    if isinstance(error, StoreError):
        return EndReason.INTERNAL_ERROR, error.message
    if isinstance(error, ResourceExhausted):
        return EndReason.OVERLOADED, error.message
    if isinstance(error, ConnectorError):
        return EndReason.LIVEKIT_UNAVAILABLE, error.message
    if isinstance(error, asyncio.CancelledError):
        return EndReason.ENDED_BY_API, "the request was given up"
    return EndReason.INTERNAL_ERROR, repr(error)
