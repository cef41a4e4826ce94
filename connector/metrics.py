"""Prometheus metrics, served at `/metrics`. Each service has its own registry, so that tests can run several services
in one process.

With several workers, `connector.supervisor` sets PROMETHEUS_MULTIPROC_DIR: prometheus-client then keeps the values of
all workers in files, and every worker shows the sums for the whole service.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SETUP_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_LAG_BUCKETS = (0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)


class Metrics:
    """Labels: `direction` and `reason` as in `connector.model`; `path` is `from_carrier` or `to_carrier`."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.calls = Counter(
            "connector_calls", "Calls that ended", ["provider", "direction", "reason"], registry=registry
        )
        self.active = Gauge(
            "connector_calls_active",
            "Live calls, by state",
            ["state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.joins_waiting = Gauge(
            "connector_joins_waiting",
            "Calls that wait for their turn to join LiveKit",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.setup = Histogram(
            "connector_setup_seconds",
            "Time to create a connect_url (api), to wait for a turn to join (queue), to join, from the stream's "
            "start to a published track (answer)",
            ["step", "direction"],
            buckets=_SETUP_BUCKETS,
            registry=registry,
        )
        self.duration = Histogram(
            "connector_call_duration_seconds",
            "From the stream's start to its end",
            ["direction"],
            buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400),
            registry=registry,
        )
        self.frames = Counter("connector_frames", "Audio frames carried", ["path"], registry=registry)
        self.dropped = Counter("connector_frames_dropped", "Audio frames dropped", ["path", "why"], registry=registry)
        self.lateness = Histogram(
            "connector_frame_lateness_seconds",
            "How much later than its best recent neighbour a carrier frame came",
            buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.2, 0.5, 1, 5),
            registry=registry,
        )
        self.playback_lag = Histogram(
            "connector_playback_lag_seconds",
            "From sending a mark to the carrier's report that playback has reached it",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.sdk_faults = Counter(
            "connector_sdk_faults",
            "Audio frames of callers that LiveKit's SDK lost (capture_lost) or refused (capture_refused)",
            ["fault"],
            registry=registry,
        )
        self.dtmf = Counter("connector_dtmf", "DTMF digits", ["path"], registry=registry)
        self.refused = Counter(
            "connector_refused",
            "Requests refused before a call or a stream",
            ["at", "why"],
            registry=registry,
        )
        self.agents = Counter(
            "connector_agents",
            "Answered calls without an agent or person: missing, dispatched (again), returned, fallback, transferred, "
            "no_agent, room_empty",
            ["what"],
            registry=registry,
        )
        self.returns = Counter(
            "connector_returns",
            "Media streams that were lost in mid-call: resumed, taken_over (by another process), expired (did not come "
            "back in time), too_many (in a short time: the call was ended)",
            ["result"],
            registry=registry,
        )
        self.return_gap = Histogram(
            "connector_return_gap_seconds",
            "From the last message of a lost media stream to the moment at which phone and room hear each other again",
            buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20),
            registry=registry,
        )
        self.webhooks = Counter(
            "connector_webhooks",
            "Attempts to deliver a webhook, by their result: delivered, failed (another follows), given_up",
            ["result"],
            registry=registry,
        )
        self.webhooks_pending = Gauge(
            "connector_webhooks_pending",
            "Webhooks in the store that wait for their delivery",
            registry=registry,
            multiprocess_mode="livemax",
        )

        self.peer_requests = Counter(
            "connector_peer_requests",
            "Requests carried to the process that holds the call, by result: done, refused (its own error), deadline, "
            "canceled (by the client), gone, unreachable, no_address, not_held, answer_lost, failed",
            ["request", "result"],
            registry=registry,
        )
        self.hang_ups = Counter(
            "connector_hang_ups",
            "Tries to hang a phone up over its carrier's API, by result: done, failed (another follows), given_up",
            ["provider", "result"],
            registry=registry,
        )
        self.hang_ups_pending = Gauge(
            "connector_hang_ups_pending",
            "Phones that are still to be hung up",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def render(self) -> bytes:
        registry = self.registry
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
