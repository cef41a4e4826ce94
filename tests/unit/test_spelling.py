"""A setting with a mistake in its name is told, with the name that was meant; what others set is not."""

from __future__ import annotations

import pytest

from connector.config_sources import setting_names
from connector.spelling import nearest, unknown_variables


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("CONNECTOR_MAXCALLS", "CONNECTOR_MAX_CALLS"),
        ("CONNECTOR_PUBLICURL", "CONNECTOR_PUBLIC_URL"),
        ("CONNECTOR_MAX_CALL", "CONNECTOR_MAX_CALLS"),
        ("connector_grpcport", "CONNECTOR_GRPC_PORT"),
        ("CONNECTOR_ZZZZ_QQQQ", ""),
        ("TWILIO_AUTHTOKEN", "TWILIO_AUTH_TOKEN"),
        ("TWILIO_ACCOUNT_ID", "TWILIO_ACCOUNT_SID"),
        ("TELNYX_PUBLICKEY", "TELNYX_PUBLIC_KEY"),
        ("PLIVO_AUTHID", "PLIVO_AUTH_ID"),
        ("LIVEKIT_APIKEY", "LIVEKIT_API_KEY"),
    ],
)
def test_a_near_miss_is_told_with_the_name_that_was_meant(given: str, meant: str) -> None:
    assert unknown_variables([given], setting_names()) == [(given, meant)]


@pytest.mark.parametrize(
    "name",
    [
        "CONNECTOR_MAX_CALLS",
        "connector_max_calls",
        "CONNECTOR_SIP_PASSWORD",
        "CONNECTOR_ADDRESS",
        "CONNECTOR_URL",
        "CONNECTOR_SERVICE_HOST",
        "CONNECTOR_SERVICE_PORT_HTTP",
        "CONNECTOR_PORT_8080_TCP_ADDR",
        "TWILIO_PHONE_NUMBER",
        "TWILIO_API_SECRET",
        "LIVEKIT_AGENT_NAME",
        "PLIVO_NUMBER",
        "PATH",
    ],
)
def test_known_names_and_those_of_other_programs_are_no_news(name: str) -> None:
    assert unknown_variables([name], setting_names()) == []


def test_without_anything_alike_there_is_no_guess() -> None:
    assert nearest("something", ["else_entirely"]) == ""
