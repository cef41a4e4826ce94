"""Logs and counts refused API requests, in the same way for all transports."""

from __future__ import annotations

import structlog

from connector.metrics import Metrics

log = structlog.get_logger()

_OURS_TO_MEND = frozenset({"internal", "unavailable", "resource_exhausted"})


class Refusals:
    """Logs and counts refused requests. Otherwise an operator would not see, for example, an expired client token."""

    def __init__(self, metrics: Metrics) -> None:
        self._refused = metrics.refused

    def note(self, method: str, code: str, message: str) -> None:
        """`code`: the Twirp code. A problem that an operator can fix is logged as a warning."""
        self._refused.labels("api", code).inc()
        write = log.warning if code in _OURS_TO_MEND else log.info
        write("API request refused", method=method, code=code, error=message)
