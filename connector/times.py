"""Formats times for people and programs."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_utc(at: float) -> str:
    """Formats Unix seconds as ISO 8601 in UTC, like VideoSDK: `2026-06-21T14:30:45.123Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_local(at: float) -> str:
    """Formats Unix seconds as ISO 8601 in this machine's time zone, with whole seconds, for a terminal."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")
