"""Telnyx's signatures.

https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks#webhook-signing
"""

from __future__ import annotations

from base64 import b64decode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEADER = "telnyx-signature-ed25519"
TIMESTAMP_HEADER = "telnyx-timestamp"
TELNYX_TOLERANCE = 300
"""Maximum difference in seconds between a request's timestamp and our clock, in either direction."""


def telnyx_public_key(text: str) -> Ed25519PublicKey:
    """Reads the base64 key that Telnyx's portal shows. ValueError if it is not a key."""
    try:
        return Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
    except ValueError as error:
        raise ValueError("not the base64 of a 32 byte Ed25519 key") from error


def telnyx_signature_valid(
    public_key: Ed25519PublicKey, timestamp: str | None, body: bytes, signature: str | None, now: float
) -> bool:
    """Whether `signature`, the telnyx-signature-ed25519 header, is Telnyx's for this body at this time.

    `timestamp` is the telnyx-timestamp header, in Unix seconds, and `body` the unmodified request body (empty for a
    GET); `now` is our clock, in Unix seconds. A recorded request can be replayed for five minutes at most.
    https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks#webhook-signing
    """
    if not timestamp or len(timestamp) > 20 or not timestamp.isascii() or not timestamp.isdigit():
        return False
    if abs(now - int(timestamp)) > TELNYX_TOLERANCE:
        return False
    try:
        public_key.verify(b64decode(signature or "", validate=True), timestamp.encode() + b"|" + body)
    except (ValueError, InvalidSignature):
        return False
    return True
