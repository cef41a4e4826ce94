"""One note of every API request that was refused, the same over each transport."""

from __future__ import annotations

import structlog

from connector.metrics import Metrics

log = structlog.get_logger()

_OURS_TO_MEND = frozenset({"internal", "unavailable", "resource_exhausted"})


class Refusals:
    """Logs and counts; without it nobody would see that a client's token has expired."""

    def __init__(self, metrics: Metrics) -> None:
        self._refused = metrics.refused

    def note(self, method: str, code: str, message: str) -> None:
        """`code` is Twirp's; what an operator can mend is a warning."""
        self._refused.labels("api", code).inc()
        write = log.warning if code in _OURS_TO_MEND else log.info
        write("API request refused", method=method, code=code, error=message)
