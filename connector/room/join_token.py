"""The JWT with which a caller joins its room.

The SDK's `AccessToken` cannot state kind details, so the claims are signed here. Their names are those of
LiveKit's `auth.ClaimGrants`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jwt

from connector.model.call import ParticipantSpec

TOKEN_LIFETIME = 6 * 3600.0
"""Seconds. The server refreshes the token during the session; this limits a reconnect after a long silence."""

MAX_NAME = 256
"""Bytes; livekit-server's `limit.max_participant_name_length`."""


def visible_grants(room: str) -> dict[str, Any]:
    return {
        "roomJoin": True,
        "room": room,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
        "canUpdateOwnMetadata": True,
    }


def hidden_grants(room: str) -> dict[str, Any]:
    return {**visible_grants(room), "hidden": True}


def fitting_name(name: str) -> str:
    """Cut a display name to the `MAX_NAME` bytes that LiveKit accepts, at a whole character. LiveKit refuses a join
    with a longer one."""
    return name.encode()[:MAX_NAME].decode(errors="ignore")


def join_token(
    api_key: str,
    api_secret: str,
    participant: ParticipantSpec,
    kind_details: tuple[str, ...],
    video: Mapping[str, Any],
    attributes: Mapping[str, str],
) -> str:
    """Sign a join of kind CONNECTOR; `kind_details` e.g. `("connector_twilio",)`."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": api_key,
        "sub": participant.identity,
        "nbf": now - 60,
        "exp": now + int(TOKEN_LIFETIME),
        "name": fitting_name(participant.name),
        "metadata": participant.metadata,
        "attributes": dict(attributes),
        "kind": "connector",
        "video": dict(video),
    }
    if kind_details:
        claims["kindDetails"] = list(kind_details)
    return jwt.encode(claims, api_secret, algorithm="HS256")
