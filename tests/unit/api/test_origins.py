"""Which public origin serves a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from connector.api.origins import Origins
from connector.config_sources import ConfigError, load_settings
from connector.model.provider import Provider
from tests.carriers import CARRIERS

DEFAULT, US, IN = "https://calls.example.com", "https://us.example.com", "https://in.example.com:8443"
ORIGINS = Origins(DEFAULT, {"us002": US, "in002": IN, "us003": US}, {"US": "us002", "in": "in002"})
CREDENTIALS = {"livekit_api_key": "k", "livekit_api_secret": "s"}


@pytest.mark.parametrize(
    ("region", "country", "origin"),
    [
        ("", "", DEFAULT),
        ("us002", "", US),
        ("in002", "US", IN),
        ("", "US", US),
        ("", "us", US),
        ("", "IN", IN),
        ("", "DE", DEFAULT),
        ("mars", "", DEFAULT),
        ("mars", "US", DEFAULT),
    ],
)
def test_the_region_comes_before_the_country(region: str, country: str, origin: str) -> None:
    assert ORIGINS.pick(region, country) == origin


def test_what_is_not_configured_is_logged() -> None:
    with capture_logs() as lines:
        ORIGINS.pick("mars")
        ORIGINS.pick("", "DE")
        ORIGINS.pick("us002")
    assert [(line.get("region"), line.get("country")) for line in lines] == [("mars", None), (None, "DE")]


def test_every_origin_once() -> None:
    assert ORIGINS.every == (DEFAULT, US, IN)


def test_the_stream_s_url() -> None:
    assert CARRIERS[Provider.PLIVO].stream_url(IN, "t") == "wss://in.example.com:8443/plivo?ref=t"
    assert CARRIERS[Provider.TWILIO].stream_url("http://127.0.0.1:1", "t") == "ws://127.0.0.1:1/twilio/t"


def test_they_are_maps_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"regions:\n  us002: {US}/\ncountries:\n  us: us002\n")
    settings = load_settings(file, CREDENTIALS)
    assert (settings.regions, settings.countries) == ({"us002": US}, {"US": "us002"})


def test_and_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_REGIONS", json.dumps({"us002": US}))
    monkeypatch.setenv("CONNECTOR_COUNTRIES", json.dumps({"CA": "us002"}))
    settings = load_settings(None, CREDENTIALS)
    assert (settings.regions, settings.countries) == ({"us002": US}, {"CA": "us002"})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"regions": {"us": "us.example.com"}}, "URL that starts with"),
        ({"regions": {"us": "https://a/?b"}}, "origin"),
        ({"countries": {"USA": "us"}}, "USA: must be ISO"),
        ({"countries": {"US": "us"}}, "not in CONNECTOR_REGIONS: us"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_settings(None, CREDENTIALS | values)


def test_a_map_that_is_no_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_REGIONS", "us002=https://us.example.com")
    with pytest.raises(ConfigError, match="CONNECTOR_REGIONS: must be JSON"):
        load_settings(None, CREDENTIALS)
