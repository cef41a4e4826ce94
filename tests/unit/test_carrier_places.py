"""A carrier is one place: its package, its REST module and its line in the table. No other code names one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from connector.carrier_table import TABLE, Entry
from connector.model.provider import Provider

PACKAGE = Path(__file__).resolve().parents[2] / "connector"
NEUTRAL = ("api", "call", "cli", "room", "routing.py", "sip", "storage", "tokens.py", "webhooks")
NAMED = re.compile("|".join(entry.carrier.provider.value for entry in TABLE), re.IGNORECASE)

EXCEPTIONS = {
    "api/rpc/methods.py": "the table of RPCs: LiveKit's own is called ConnectTwilioCall, and ours after it",
    "api/rpc/requests.py": "from the RPC to the carrier in its name",
    "api/rpc/service.py": "the methods of these RPCs",
    "api/rpc/twirp.py": "what LiveKit's own RPC makes of unknown fields",
    "cli/calls.py": "calls the RPC PlaceTwilioCall",
    "api/carrier/conferences.py": "the RPCs about conferences, which Twilio alone has",
    "api/carrier/conference_callback.py": "where Twilio tells of them",
    "api/carrier/sip_dial.py": "mode `sip` is TwiML that dials SIP",
    "cli/sip.py": "the same two features on the command line",
    "api/carrier/connect_url.py": "/twilio/check, for which proxies are set up",
}
"""Modules that may name a carrier, and why. None of them chooses by carrier, but for `api/rpc/requests.py`."""
MAY_CHOOSE = frozenset({"api/rpc/requests.py"})


def neutral_modules() -> list[Path]:
    places = [PACKAGE / part for part in NEUTRAL]
    return [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@cache
def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def words(source: str) -> Iterator[str]:
    """Names and texts of the code; docstrings and comments are for people, and may give examples."""
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in nodes(source) if isinstance(node, scopes)]
    docstrings = {statement.value for body in bodies for statement in body if isinstance(statement, ast.Expr)}
    for node in nodes(source):
        match node:
            case ast.Constant(value=str(text)) if node not in docstrings:
                yield text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.alias(name=text):
                yield text
            case ast.ImportFrom(module=str(text)):
                yield text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.ClassDef(name=text):
                yield text


def choices(source: str) -> Iterator[str]:
    """Where the code does one thing for one carrier and another for the others."""
    for node in nodes(source):
        match node:
            case ast.Attribute(value=ast.Name(id="Provider"), attr=member) if member in Provider.__members__:
                yield f"Provider.{member}"
            case ast.Match(subject=subject) if "provider" in ast.unparse(subject).lower():
                yield f"match {ast.unparse(subject)}"


def test_what_is_for_every_carrier_names_none() -> None:
    sources = {name_of(path): path.read_text() for path in neutral_modules()}
    # Most modules have no carrier's name in them at all: these need not be parsed.
    named = {
        name: found
        for name, source in sources.items()
        if NAMED.search(source) and (found := {word for word in words(source) if NAMED.search(word)})
    }
    assert named.keys() - EXCEPTIONS.keys() == set(), named


def test_and_does_not_choose_by_carrier() -> None:
    sources = {name_of(path): path.read_text() for path in neutral_modules()}
    found = {
        name: chosen for name, source in sources.items() if "rovider" in source and (chosen := list(choices(source)))
    }
    assert found.keys() - MAY_CHOOSE == set(), found


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_each_exception_is_needed(name: str) -> None:
    assert any(NAMED.search(word) for word in words((PACKAGE / name).read_text()))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("if p is Provider.TELNYX: pass", ["Provider.TELNYX"]),
        ("match call.provider:\n    case 'x': pass", ["match call.provider"]),
        ("match provider:\n    case _: pass", ["match provider"]),
        ("Provider('twilio')", []),
        ("match answer:\n    case _: pass", []),
    ],
)
def test_a_choice_is_seen(source: str, found: list[str]) -> None:
    assert list(choices(source)) == found


def test_a_name_is_seen_in_code_and_not_in_a_docstring() -> None:
    source = (
        '"""Twilio."""\nfrom connector.carriers.plivo import x\n'
        'def f(twilio_sid):\n    """Telnyx."""\n    return "TELNYX_KEY"'
    )
    assert sorted(word for word in words(source) if NAMED.search(word)) == [
        "TELNYX_KEY",
        "connector.carriers.plivo",
        "twilio_sid",
    ]


def test_every_carrier_of_the_model_has_a_line_in_the_table() -> None:
    assert [entry.carrier.provider for entry in TABLE] == list(Provider)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.carrier.provider.value)
def test_a_rest_module_has_all_that_the_table_promises(entry: Entry) -> None:
    module = entry.rest_module
    assert callable(module.control)
    assert callable(module.look_at)
