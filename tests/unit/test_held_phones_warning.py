"""A carrier that holds phones, and no key to hang them up: told at the start, while something can be done about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connector.app import Connector
from connector.config import Settings
from connector.model.connector import ConnectorEntry
from connector.model.provider import Provider
from connector.startup import warn_of_held_phones

KEY = "A" * 43 + "="


@pytest.mark.parametrize(
    ("connectors", "settings", "missing"),
    [
        ([], {}, []),
        ([Provider.TWILIO], {}, []),
        ([Provider.TELNYX], {}, ["TELNYX_API_KEY"]),
        ([Provider.TELNYX], {"telnyx_api_key": "k"}, []),
        ([], {"telnyx_public_key": KEY}, ["TELNYX_API_KEY"]),
        ([], {"telnyx_public_key": KEY, "telnyx_api_key": "k"}, []),
        ([Provider.PLIVO], {}, ["PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN"]),
        ([], {"plivo_auth_token": "t"}, ["PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN"]),
        ([], {"plivo_auth_id": "MA1"}, ["PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN"]),
        ([Provider.PLIVO], {"plivo_auth_id": "MA1", "plivo_auth_token": "t"}, []),
        (
            [Provider.PLIVO, Provider.TELNYX],
            {"plivo_auth_token": "t"},
            ["PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN", "TELNYX_API_KEY"],
        ),
    ],
)
async def test_of_a_carrier_in_use_whose_phones_cannot_be_hung_up_the_missing_setting_is_told(
    tmp_path: Path, connectors: list[Provider], settings: dict[str, str], missing: list[str]
) -> None:
    fixed = {
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "s" * 32,
        "CONNECTOR_STORE": f"sqlite:///{tmp_path / 'calls.db'}",
    }
    service = Connector(Settings.model_validate({**fixed, **settings}))
    await service.store.open()
    try:
        for provider in connectors:
            await service.store.connectors.insert(ConnectorEntry(f"cn_{provider}", provider, f"{provider}", "n", 1.0))
        with capture_logs() as lines:
            await warn_of_held_phones(service.store, service.carriers, service.settings)
    finally:
        await service.store.close()
    assert [(line["log_level"], line["set"]) for line in lines] == [("warning", name) for name in missing]
