"""docs/endings.md is the one table of endings: no reason is missing from it, and none in it is made up."""

from __future__ import annotations

import re
from pathlib import Path

from connector.model.end_reason import EndReason

DOCUMENT = Path(__file__).parents[3] / "docs" / "endings.md"


def test_every_end_reason_is_explained_and_every_word_in_the_reason_column_exists() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    named = {word for row in rows for word in re.findall(r"`([a-z_]+)`", row[2])}
    assert named == {str(reason) for reason in EndReason}
