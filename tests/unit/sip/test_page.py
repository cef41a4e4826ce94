"""docs/sip.md shows what the code writes, and quotes what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connector.carriers.twilio.dial import SipDial, twilio_dial
from connector.cli.root_commands import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "sip.md").read_text()
SOURCE = "\n".join(path.read_text() for path in (ROOT / "connector").rglob("*.py"))
URI = "sip:+15550001111@sip.example.com"


def test_both_documents_are_those_of_the_builder() -> None:
    assert twilio_dial(SipDial(URI, "connector", "f630iNWO3ksc2WERUQWymItyTCSJlxNG")) in PAGE
    reports = "https://voice.example.com/v2/hooks/sip/…"
    webhook = SipDial(URI, "connector", "…", f"{reports}/ended", f"{reports}/answered", time_limit=14400)
    assert twilio_dial(webhook) in PAGE


def quoted() -> list[str]:
    """What the first column of the troubleshooting puts into code, without what the code fills in."""
    table = PAGE.partition("## When it does not work")[2]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| ")][2:]
    spans = [span for cell in first for span in re.findall(r"`([^`]+)`", cell)]
    pieces = [piece.strip() for span in spans for piece in re.split(r"…|CF…|sip_status=\S*|status=\S*|\b\d{3}\b", span)]
    return [piece for piece in pieces if len(piece) > 8]


@pytest.mark.parametrize("phrase", quoted())
def test_what_the_page_quotes_is_said_somewhere(phrase: str) -> None:
    joined = re.sub(r'"\s*f?"', "", SOURCE)
    assert phrase in joined or phrase.replace("CONNECTOR_SIP_ENDPOINT ", "") in joined


def test_there_is_something_to_quote() -> None:
    assert len(quoted()) > 8


@pytest.mark.parametrize("option", re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))
def test_the_options_exist(option: str) -> None:
    help_text = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, ["sip", "setup", "--help"]).output
    assert option in help_text
