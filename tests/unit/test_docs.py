"""The documentation names all that there is, and nothing that there is not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml
from pydantic import AliasChoices, SecretStr

from connector.cli.root_commands import app
from connector.config import Settings
from connector.config_sources import load_settings
from connector.metrics import Metrics
from connector.model.end_reason import EndReason

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLE = ROOT / "connector.example.yaml"
_LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


def _pages() -> list[Path]:
    """Every page of the repository; without those of packages that the conformance suite installed."""
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        listed = subprocess.run([*git, "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).exists())
    return sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


PAGES = _pages()


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the tables of one page whose first column has this heading, cell by cell."""
    rows, inside = [], False
    for line in (DOCS / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            rows.append(cells)
    return rows


def _named(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _shown(default: object) -> str:
    """A default as the documentation writes it."""
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    if value == "":
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {(row[0], row[1]): row[2] for row in _rows("configuration.md", "environment")}
    settings = {}
    for name, field in Settings.model_fields.items():
        assert isinstance(field.validation_alias, AliasChoices)
        settings[f"`{field.validation_alias.choices[-1]}`", f"`{name}`"] = _shown(field.default)
    assert documented == settings


def test_the_example_file_shows_every_setting_and_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "CONNECTOR_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    text = EXAMPLE.read_text()
    commented_out = yaml.safe_load("\n".join(re.findall(r"^# (\w+:.*)$", text, re.MULTILINE)))
    assert set(commented_out) | set(yaml.safe_load(text)) == set(Settings.model_fields)
    for name, value in commented_out.items():
        default = Settings.model_fields[name].default
        assert value == (default.get_secret_value() if isinstance(default, SecretStr) else default), name
    settings = load_settings(EXAMPLE, {"livekit_api_secret": "s" * 32})
    assert settings.public_origin == "https://voice.example.com"


def test_every_end_reason_is_documented() -> None:
    documented = _named([row[0] for row in _rows("operations.md", "reason")])
    assert documented == {reason.value for reason in EndReason}


def test_every_metric_is_documented() -> None:
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()}
    assert len(exposed) > 5
    assert _named([row[0] for row in _rows("operations.md", "metric")]) == exposed


@pytest.mark.parametrize("page", ["twilio.md", "telnyx.md", "plivo.md"])
def test_what_the_troubleshooting_table_says_of_the_log_is_what_the_code_says(page: str) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "connector").rglob("*.py"))
    rows = _rows(page, "what you see")
    assert len(rows) > 10
    for row in rows:
        for text in _named([row[1]]):
            field = re.fullmatch(r'"(\w+)": .+', text)
            assert (field[1] if field else text) in source, text


def test_every_command_in_the_documentation_exists() -> None:
    commands = getattr(typer.main.get_command(app), "commands", {})
    used = {
        (_name(page), command)
        for page in PAGES
        for block in _BLOCK.findall(page.read_text())
        for command in re.findall(r"(?:^|\.venv/bin/|\$\()connector ([a-z]\w*)", block, re.MULTILINE)
    }
    assert ("README.md", "serve") in used
    assert {(page, command) for page, command in used if command not in commands} == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_link_is_dead(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in _anchors(linked), target


def _anchors(page: Path) -> set[str]:
    """What the headings of a page are called in its links, by GitHub's rules."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tests_would_notice() -> None:
    assert {_name(page) for page in PAGES} >= {"README.md", "ARCHITECTURE.md", "docs/twilio.md"}
    assert _LINK.findall("see [a](b.md#c) and ![d](e.png)") == ["b.md#c"]
    assert "4-inbound" in _anchors(DOCS / "twilio.md")
