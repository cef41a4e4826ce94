"""The agent-watch options of a request (see `AgentWatch`). LiveKit's ConnectTwilioCall has no fields for them, so they
are keys of `participant_attributes`; the participant itself does not get these attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from connector.config import DAY
from connector.errors import InvalidArgument
from connector.model.call import AgentWatch
from connector.numbers import E164

WARN_AFTER = "connector.agentWarnAfter"
TIMEOUT = "connector.agentTimeout"
EMPTY_TIMEOUT = "connector.roomEmptyTimeout"
FALLBACK_AGENT = "connector.fallbackAgent"
FALLBACK_NUMBER = "connector.fallbackNumber"
MESSAGE = "connector.noAgentMessage"
WATCH_ATTRIBUTES = frozenset({WARN_AFTER, TIMEOUT, EMPTY_TIMEOUT, FALLBACK_AGENT, FALLBACK_NUMBER, MESSAGE})
MAX_MESSAGE = 4096
MAX_AGENT_NAME = 256


def agent_watch(attributes: Mapping[str, str]) -> AgentWatch:
    """Reads the options from a request's attributes; a missing one is None. Raises InvalidArgument, which names the
    attribute."""
    number = attributes.get(FALLBACK_NUMBER)
    if number and not E164.fullmatch(number):
        raise _wrong(FALLBACK_NUMBER, "is not a number in E.164 form such as +15551234567")
    return AgentWatch(
        warn_after=_seconds(attributes, WARN_AFTER),
        timeout=_seconds(attributes, TIMEOUT),
        empty_timeout=_seconds(attributes, EMPTY_TIMEOUT),
        fallback_agent=_text(attributes, FALLBACK_AGENT, MAX_AGENT_NAME),
        fallback_number=number,
        message=_text(attributes, MESSAGE, MAX_MESSAGE),
    )


def _seconds(attributes: Mapping[str, str], key: str) -> float | None:
    if key not in attributes:
        return None
    try:
        seconds = float(attributes[key])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= DAY:
        raise _wrong(key, f"is not a number of seconds from 0 (off) to {DAY}")
    return seconds


def _text(attributes: Mapping[str, str], key: str, limit: int) -> str | None:
    value = attributes.get(key)
    if value is not None and (len(value) > limit or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value)):
        raise _wrong(key, f"is longer than {limit} characters, or contains control characters")
    return value


def _wrong(key: str, problem: str) -> InvalidArgument:
    return InvalidArgument("participant_attributes", f"{key} {problem}")
