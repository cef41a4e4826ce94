"""What a layer may know of the world, beside the imports between layers that `make lint` checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "connector"

# The pure layer is given bytes and the time; it neither waits nor looks at a clock.
PURE = ("carriers", "audio", "tokens.py", "routing.py")
IMPURE_MODULES = frozenset(
    {
        "aiohttp",
        "asyncio",
        "concurrent",
        "datetime",
        "grpc",
        "http",
        "httpx",
        "livekit",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "redis",
        "requests",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "structlog",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uvloop",
    }
)

# Words of one carrier's wire; elsewhere there are events and commands.
CARRIER_WORDS = frozenset(
    {
        "CallSid",
        "CallStatus",
        "CallUUID",
        "ConferenceSid",
        "DialCallStatus",
        "DialStatus",
        "SequenceNumber",
        "streamSid",
        "callSid",
        "accountSid",
        "customParameters",
        "mediaFormat",
        "sequenceNumber",
        "playAudio",
        "clearAudio",
        "playedStream",
        "clearedAudio",
        "sendDTMF",
        "media_format",
        "call_control_id",
        "inbound_track",
        "audio/x-mulaw",
    }
)
CARRIER_PLACES = ("carriers",)


def sources(*parts: str) -> list[Path]:
    """The Python files of some parts of the package (a file or a directory each); all of it without any."""
    found: list[Path] = []
    for part in parts or (".",):
        place = PACKAGE / part
        found += [place] if place.is_file() else sorted(place.rglob("*.py"))
    return found


def imported(source: str) -> Iterator[str]:
    """Every module that the code imports anywhere, and for `from a import b` also a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, packages: Iterator[str] | frozenset[str] | tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def wire_words(source: str) -> list[str]:
    """The carrier's words among the string literals of the code."""
    if not any(word in source for word in CARRIER_WORDS):
        return []  # Most modules: they need not be parsed.
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in CARRIER_WORDS
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(*PURE), ids=name_of)
def test_the_pure_layer_does_no_io_and_has_no_clock(path: Path) -> None:
    impure = {module for module in imported(path.read_text()) if within(module, IMPURE_MODULES)}
    assert impure == set()


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if path.relative_to(PACKAGE).parts[0] not in CARRIER_PLACES],
    ids=name_of,
)
def test_a_carriers_words_stay_in_its_module(path: Path) -> None:
    assert wire_words(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import time", "time"),
        ("def f():\n    from time import monotonic", "time"),
        ("from asyncio import events as e", "asyncio"),
        ("from urllib import request", "urllib.request"),
        ("import livekit.rtc", "livekit"),
    ],
)
def test_a_forbidden_import_is_found(source: str, module: str) -> None:
    assert any(within(found, (module,)) for found in imported(source))
    assert within(module, IMPURE_MODULES)


def test_a_carriers_word_is_found() -> None:
    assert wire_words('x = m["streamSid"]\ny = "twilio.streamSid"') == ["streamSid"]


def test_there_is_something_to_check() -> None:
    assert all(sources(part) for part in ("carriers", "audio"))


SAME_MEANING = {"__init__", "codec", "documents", "signatures"}
"""Names in the packages of several carriers, which mean the same in each."""


def test_a_module_name_stands_for_one_thing() -> None:
    names = [path.stem for path in PACKAGE.rglob("*.py")]
    assert {name for name in names if names.count(name) > 1} - SAME_MEANING == set()
