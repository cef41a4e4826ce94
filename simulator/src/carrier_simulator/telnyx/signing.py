"""Signs as Telnyx does: Ed25519 over the time and the body.

https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks#webhook-signing
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "telnyx-signature-ed25519"
TIMESTAMP = "telnyx-timestamp"


def private_key(secret: str) -> Ed25519PrivateKey:
    """Any text makes a key."""
    return Ed25519PrivateKey.from_private_bytes(sha256(secret.encode()).digest())


def public_key(secret: str) -> str:
    """Base64, as Telnyx's portal shows it."""
    return b64encode(private_key(secret).public_key().public_bytes_raw()).decode()


class TelnyxSigner:
    """`clock` tells Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock

    def request(
        self, secret: str, method: str, url: str, form: Sequence[tuple[str, str]], body: bytes
    ) -> Mapping[str, str]:
        timestamp = str(int(self.clock()))
        signature = private_key(secret).sign(timestamp.encode() + b"|" + body)
        return {SIGNATURE: b64encode(signature).decode(), TIMESTAMP: timestamp}

    def handshake(self, secret: str, url: str) -> Mapping[str, str]:
        """None is documented."""
        return {}
