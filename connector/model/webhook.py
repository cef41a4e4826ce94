"""Webhooks: the events of a call, the endpoints that receive them, and the queue of deliveries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LifecycleEvent(StrEnum):
    """Events of a call that a customer's server can receive; the names are those of VideoSDK's webhooks."""

    STARTED = "call-started"
    RINGING = "call-ringing"
    ANSWERED = "call-answered"
    HANGUP = "call-hangup"
    MISSED = "call-missed"
    TRANSFERRED = "call-transferred"
    UPDATE = "call-update"
    TRANSFER_INITIATED = "call-transfer-initiated"
    TRANSFERRING = "call-transferring"
    TRANSFER_RINGING = "call-transfer-ringing"
    TRANSFER_ACCEPTED = "call-transfer-accepted"
    TRANSFER_FAILED = "call-transfer-failed"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A customer's URL and the events that it receives."""

    id: str
    """`wh_` and 16 characters."""
    url: str
    events: tuple[LifecycleEvent, ...]
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key that signs deliveries. `retired_at` 0.0: the key is in use."""

    id: str
    private_pem: str
    created_at: float
    retired_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to deliver to one endpoint. Every attempt signs and sends the same bytes of `body`."""

    id: str
    endpoint_id: str
    call_id: str
    event: LifecycleEvent
    body: str
    created_at: float
    due_at: float
    """Unix time of the next attempt."""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One entry of the delivery log. `status` is 0 if there was no HTTP response; `error` has the reason."""

    delivery_id: str
    endpoint_id: str
    call_id: str
    event: LifecycleEvent
    number: int
    at: float
    seconds: float
    status: int
    error: str = ""
