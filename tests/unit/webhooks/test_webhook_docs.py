"""docs/webhooks.md says what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from connector.api.rest.call_operations import as_json
from connector.model.call import CallRecord, CallState, Direction
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.webhooks import post, sender, signing
from connector.webhooks.payload import body

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "webhooks.md").read_text()


def test_every_event_is_documented() -> None:
    rows = re.findall(r"^\| `(call-[a-z-]+)` \|", PAGE, re.MULTILINE)
    assert rows == [
        LifecycleEvent.STARTED,
        LifecycleEvent.RINGING,
        LifecycleEvent.ANSWERED,
        LifecycleEvent.UPDATE,
        LifecycleEvent.TRANSFER_INITIATED,
        LifecycleEvent.TRANSFERRING,
        LifecycleEvent.TRANSFER_RINGING,
        LifecycleEvent.TRANSFER_ACCEPTED,
        LifecycleEvent.TRANSFERRED,
        LifecycleEvent.TRANSFER_FAILED,
        LifecycleEvent.HANGUP,
        LifecycleEvent.MISSED,
    ]
    assert set(rows) == set(LifecycleEvent)


def test_the_body_that_is_shown_has_the_fields_of_a_body() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (shown,) = (json.loads(block) for block in blocks if "webhookType" in block)
    record = CallRecord("c", Provider.TWILIO, Direction.INBOUND, "r", "i", CallState.PENDING, "o", 1.0)
    made = json.loads(body("whd", LifecycleEvent.STARTED, record, {}, 1.0, as_json))
    assert list(shown) == list(made)
    assert list(shown["data"]) == list(made["data"])


def test_what_the_troubleshooting_table_quotes_is_in_the_code() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "connector").rglob("*.py"))
    table = PAGE[PAGE.index("## Troubleshooting") :]
    quoted = re.findall(r"^\| [^|]+\| `([^`]+)`", table, re.MULTILINE)
    assert len(quoted) >= 8
    for text in quoted:
        assert text in source, text


def test_the_numbers_are_those_of_the_code() -> None:
    assert post.TIME_OUT == 10
    assert "within 10 seconds" in PAGE
    assert sender.GIVE_UP_AFTER == 24 * 3600
    assert "for 24 hours" in PAGE
    assert sender.MAX_DELAY == 15 * 60
    assert "up to 15 minutes apart" in PAGE
    assert (sender.MAX_AT_ONCE_EACH, sender.MAX_AT_ONCE) == (4, 128)
    assert "at most 4 concurrent requests, only one while it fails; the total is at most 128" in PAGE
    assert sender.LEASE == 20
    assert "for 20 seconds at a time" in PAGE
    assert signing.OVERLAP == 7 * 86400
    assert "For seven days" in PAGE
    assert signing.KEY_BITS == 2048
    assert "2048-bit" in PAGE
