"""Connectors, each with a webhook URL at one carrier, and the numbers that a carrier dials to LiveKit SIP."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from connector.model.provider import Provider


class ConnectorMode(StrEnum):
    STREAM = "stream"
    """The carrier streams audio to us."""
    SIP = "sip"
    """The carrier dials LiveKit SIP."""


@dataclass(frozen=True, slots=True)
class ConnectorEntry:
    """A connector that a customer made: one webhook URL at one carrier."""

    id: str
    """`cn_` and 16 characters."""
    provider: Provider
    key_hash: str
    """SHA-256 of the webhook key, hexadecimal."""
    key_nonce: str
    """The webhook key is derived from this nonce, the service's secret and the id. Without the secret the nonce is
    useless."""
    created_at: float
    name: str | None = None
    default_room_id: str | None = None
    default_rule_id: str | None = None
    region: str | None = None
    mode: ConnectorMode = ConnectorMode.STREAM


@dataclass(frozen=True, slots=True)
class SipNumber:
    """A number with calls that the carrier dials to LiveKit SIP, and the SIP credentials for them."""

    id: str
    """The number, E.164."""
    trunk_id: str
    """LiveKit's inbound trunk."""
    username: str
    sealed_password: str
    """Can be opened only with the service's secret; see `connector.sip.secrets`."""
    created_at: float
