"""What Prometheus reads can be read."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from connector.metrics import Metrics


def test_the_text_parses_and_has_every_family_before_the_first_call() -> None:
    text = Metrics().render().decode()
    families = {family.name for family in text_string_to_metric_families(text) if not family.name.endswith("_created")}
    assert families == {
        "connector_calls",
        "connector_calls_active",
        "connector_joins_waiting",
        "connector_setup_seconds",
        "connector_call_duration_seconds",
        "connector_frames",
        "connector_frames_dropped",
        "connector_frame_lateness_seconds",
        "connector_playback_lag_seconds",
        "connector_sdk_faults",
        "connector_dtmf",
        "connector_refused",
        "connector_agents",
        "connector_returns",
        "connector_return_gap_seconds",
        "connector_webhooks",
        "connector_webhooks_pending",
        "connector_peer_requests",
        "connector_hang_ups",
        "connector_hang_ups_pending",
    }


def test_every_metric_is_described() -> None:
    assert all(family.documentation for family in text_string_to_metric_families(Metrics().render().decode()))


def test_two_services_in_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.dtmf.labels("from_carrier").inc()
    assert b'connector_dtmf_total{path="from_carrier"} 1.0' in one.render()
    assert b'path="from_carrier"' not in other.render()
