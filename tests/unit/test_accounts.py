"""Several accounts of a carrier, and two secrets of one while they are rotated."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carrier_table import carrier_secrets
from connector.carriers.plivo import Plivo
from connector.carriers.telnyx import Telnyx
from connector.config import Settings
from connector.config_sources import ConfigError, load_settings
from connector.errors import FailedPrecondition
from connector.model.provider import Provider
from tests.carriers import CARRIERS

KEYS = [b64encode(bytes([number]) * 32).decode() for number in range(3)]


def settings(monkeypatch: pytest.MonkeyPatch, **environment: object) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))
    return load_settings(None, {"livekit_api_key": "k", "livekit_api_secret": "s" * 32})


def test_a_token_by_account_and_two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = settings(
        monkeypatch,
        TWILIO_ACCOUNT_SID="AC1",
        TWILIO_AUTH_TOKEN="new-1",
        TWILIO_ACCOUNTS={"AC1": "old-1", "AC2": ["new-2", "old-2"]},
    )
    accounts = CARRIERS[Provider.TWILIO].accounts(loaded)
    assert accounts.signing("AC1") == ("new-1", "old-1")
    assert accounts.signing("AC2") == ("new-2", "old-2")
    assert accounts.signing("AC3") == ()
    assert accounts.signing("") == ("new-1", "old-1", "new-2", "old-2")
    assert accounts.calling("").id == "AC1"
    assert accounts.calling("AC2").rest == ("new-2", "old-2")
    assert accounts.calling("AC3").id == "AC1"  # Twilio's main account reaches its subaccounts.


def test_telnyx_and_plivo_have_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = settings(
        monkeypatch,
        TELNYX_PUBLIC_KEY=f"{KEYS[0]},{KEYS[1]}",
        TELNYX_API_KEY="KEY1",
        TELNYX_ACCOUNTS={"org-2": {"public_key": KEYS[2], "api_key": ["KEY2", "KEY3"]}},
        PLIVO_AUTH_ID="MA1",
        PLIVO_AUTH_TOKEN="new,old",
        PLIVO_ACCOUNTS={"MA2": "t2", "SA3": "t3"},
    )
    telnyx, plivo = (CARRIERS[provider].accounts(loaded) for provider in (Provider.TELNYX, Provider.PLIVO))
    # What has no id of its own stands for every account that has none here.
    assert telnyx.signing("org-1") == (KEYS[0], KEYS[1])
    assert telnyx.signing("org-2") == (KEYS[2], KEYS[0], KEYS[1])
    assert (telnyx.calling("org-1").rest, telnyx.calling("org-2").rest) == (("KEY1",), ("KEY2", "KEY3"))
    # Plivo's requests name the main account, and a subaccount signs all the same.
    assert plivo.signing("MA1") == ("new", "old", "t3")
    assert plivo.signing("MA9") == ("t3",)
    assert plivo.calling("MA2").rest == ("t2",)
    assert set(carrier_secrets(loaded)) == {"KEY1", "KEY2", "KEY3", "new", "old", "t2", "t3"}
    assert "KEY2" not in repr(loaded)


def test_a_call_of_an_account_without_credentials_is_named() -> None:
    plivo = CarrierAccounts(Plivo.account_rules, [CarrierAccount("MA1", ("t",), ("t",))])
    with pytest.raises(FailedPrecondition, match="Plivo account MA2, which PLIVO_ACCOUNTS does not have"):
        plivo.calling("MA2")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TWILIO_ACCOUNTS", "AC1=token", "TWILIO_ACCOUNTS: must be JSON"),
        ("TWILIO_ACCOUNTS", {"AC 1": "secret-token"}, "must be account ids"),
        ("TWILIO_ACCOUNTS", {"AC1": []}, "TWILIO_ACCOUNTS.AC1: "),
        ("PLIVO_ACCOUNTS", {"MA1": {"token": "secret-token"}}, "PLIVO_ACCOUNTS.MA1"),
        ("TELNYX_ACCOUNTS", {"org": {"public_key": "secret-token"}}, "base64 of a 32 byte Ed25519 key"),
        ("TELNYX_ACCOUNTS", {"org": {"publicKey": "secret-token"}}, "TELNYX_ACCOUNTS.ORG.PUBLICKEY"),
    ],
)
def test_what_cannot_be_used_is_told_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(monkeypatch, **{name: value})
    assert says in caught.value.message
    assert "secret-token" not in caught.value.message


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 1),
        ({"TELNYX_PUBLIC_KEY": KEYS[0]}, 1),
        ({"TELNYX_API_KEY": "KEY1"}, 10),
        ({"TELNYX_API_KEY": "KEY1", "TELNYX_ACCOUNTS": {"other": {"public_key": KEYS[0]}}}, 1),
        ({"TELNYX_API_KEY": "KEY1", "TELNYX_ACCOUNTS": {"other": {"api_key": "KEY2"}}}, 10),
        ({"TELNYX_POLL_SECONDS": "4"}, 4),
        ({"TELNYX_POLL_SECONDS": "4", "TELNYX_API_KEY": "KEY1"}, 4),
        ({"CONNECTOR_RESUME_GRACE": "0"}, 10),
    ],
)
def test_telnyx_asks_seldom_where_it_can_be_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, object], seconds: int
) -> None:
    carrier = Telnyx.of(settings(monkeypatch, **environment))
    assert carrier.poll_seconds == seconds
    assert f'<Pause length="{seconds}" />' in carrier.stream_answer("wss://voice.example.com/telnyx?ref=x")
