"""Times as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_utc(at: float) -> str:
    """Unix seconds in ISO 8601, as VideoSDK writes times: `2026-06-21T14:30:45.123Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_local(at: float) -> str:
    """Unix seconds in ISO 8601 on the clock of this machine, to the second, for a person at a terminal."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")
