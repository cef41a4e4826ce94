"""What the doctor says of carriers: of those in use alone, and what a missing credential means."""

from __future__ import annotations

import pytest

from connector.cli.doctor_carriers import check
from connector.config import Settings
from connector.model.provider import Provider

KEY = "A" * 43 + "="


def found(connectors: set[Provider], **settings: str) -> list[tuple[str, str, str]]:
    known = Settings.model_validate({"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32, **settings})
    return [(finding.level, finding.subject, finding.mend) for finding in check(known, connectors)]


@pytest.mark.parametrize(
    ("connectors", "settings", "expected"),
    [
        (set(), {}, [("warning", "Twilio signatures", "set TWILIO_AUTH_TOKEN")]),
        (set(), {"twilio_auth_token": "t"}, [("ok", "Twilio signatures", "")]),
        (
            {Provider.TELNYX},
            {},
            [
                ("warning", "Telnyx signatures", "set TELNYX_PUBLIC_KEY"),
                ("warning", "Telnyx REST API", "set TELNYX_API_KEY"),
            ],
        ),
        (set(), {"telnyx_public_key": KEY, "telnyx_api_key": "k"}, [("ok", "Telnyx signatures", "")]),
        (
            {Provider.TWILIO},
            {"plivo_auth_token": "p"},
            [
                ("warning", "Twilio signatures", "set TWILIO_AUTH_TOKEN"),
                ("ok", "Plivo signatures", ""),
                ("warning", "Plivo REST API", "set PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN"),
            ],
        ),
        ({Provider.PLIVO}, {"plivo_auth_token": "p", "plivo_auth_id": "i"}, [("ok", "Plivo signatures", "")]),
    ],
)
def test_each_carrier_in_use_is_looked_at(
    connectors: set[Provider], settings: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert found(connectors, **settings) == expected
