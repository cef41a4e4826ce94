"""The secret of a webhook URL: derived, so that the store alone gives none away."""

from __future__ import annotations

import re

import pytest

from connector.model.connector import ConnectorEntry
from connector.model.provider import Provider
from connector.tokens import WebhookKeys

KEYS = WebhookKeys("secret")


def test_a_key_has_the_documented_form() -> None:
    assert re.fullmatch("whk_[0-9A-Za-z]{32}", KEYS.derive("cn_1", "nonce"))


def test_the_same_connector_and_nonce_give_the_same_key_in_every_process() -> None:
    assert KEYS.derive("cn_1", "nonce") == WebhookKeys("secret").derive("cn_1", "nonce")


def test_a_new_nonce_another_connector_or_secret_give_another_key() -> None:
    others = {
        KEYS.derive("cn_1", "nonce"),
        KEYS.derive("cn_1", "nonce2"),
        KEYS.derive("cn_2", "nonce"),
        WebhookKeys("other").derive("cn_1", "nonce"),
    }
    assert len(others) == 4


def test_the_hash_tells_keys_apart_and_does_not_hold_them() -> None:
    key = KEYS.derive("cn_1", "nonce")
    assert KEYS.hash(key) == WebhookKeys.hash(key) != KEYS.hash(key + "x")
    assert key not in KEYS.hash(key)
    assert re.fullmatch("[0-9a-f]{64}", KEYS.hash("\ud800"))


def test_a_carrier_s_call_has_one_id_at_one_connector() -> None:
    call_id = KEYS.call_id("cn_1", "CA1")
    assert re.fullmatch("call_[0-9a-f]{24}", call_id)
    assert call_id == WebhookKeys("secret").call_id("cn_1", "CA1")
    others = {KEYS.call_id("cn_2", "CA1"), KEYS.call_id("cn_1", "CA2"), WebhookKeys("other").call_id("cn_1", "CA1")}
    assert len(others | {call_id}) == 4


def test_no_secret_no_keys() -> None:
    with pytest.raises(ValueError, match="secret"):
        WebhookKeys("")


def test_a_webhook_url_outlives_the_secret_that_made_it() -> None:
    old, both, new = WebhookKeys("old"), WebhookKeys(("new", "old")), WebhookKeys("new")
    key = old.derive("cn_1", "nonce")
    entry = ConnectorEntry("cn_1", Provider.TWILIO, WebhookKeys.hash(key), "nonce", 1.0)
    assert (old.key_of(entry), both.key_of(entry), new.key_of(entry)) == (key, key, None)
    assert both.fits(entry, key)
    assert not new.fits(entry, key)
    assert not new.fits(entry, "")
    assert old.resealed(entry) is None
    assert new.resealed(entry) is None
    kept = both.resealed(entry)
    assert kept is not None
    assert key not in repr(kept)
    # The secret before is needed no more, also not for the next rotation.
    assert (new.key_of(kept), kept.key_hash) == (key, entry.key_hash)
    assert new.fits(kept, key)
    assert both.resealed(kept) is None
    assert new.resealed(kept) is None
    assert old.key_of(kept) is None
    newest = WebhookKeys(("newest", "new"))
    again = newest.resealed(kept)
    assert again is not None
    assert WebhookKeys("newest").key_of(again) == key


def test_the_ids_that_processes_with_either_secret_give_a_call() -> None:
    old, both, new = WebhookKeys("old"), WebhookKeys(("new", "old")), WebhookKeys("new")
    assert both.call_ids("cn_1", "CA1") == [new.call_id("cn_1", "CA1"), old.call_id("cn_1", "CA1")]
