"""What the doctor says of a store that a newer connector has used: not to look for a password."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from connector.cli.doctor import store_findings
from connector.config import Settings

KEYS = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32}


async def test_a_newer_store_wants_a_newer_connector(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "calls.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    settings = Settings.model_validate(KEYS | {"CONNECTOR_STORE": f"sqlite:///{tmp_path}/calls.db"})
    (finding,) = await store_findings(settings)
    assert finding.level == "problem"
    assert "has schema 99" in finding.text
    assert "back-up from before the upgrade" in finding.mend
