"""Log lines: the call on each, numbers masked, secrets never, in two forms."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
from collections.abc import Iterator

import pytest
import structlog
from livekit.rtc import room

from connector.logs import bind_call, configure_logging, mask_phone, never_log, scrub
from tests.captured_logs import Terminal, lines_of, logging_as_before

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJkZXZrZXkifQ.Zm9vYmFyYmF6cXV4"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with logging_as_before():
        yield


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    return stream


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+15551234567", "+1********67"),
        ("15551234567", "1********67"),
        ("+49 (30) 123-456", "+4* (**) ***-*56"),
        ("12345", "12345"),
        ("anonymous", "anonymous"),
        ("", ""),
    ],
)
def test_a_number_keeps_its_first_digit_and_its_last_two(number: str, masked: str) -> None:
    assert mask_phone(number) == masked


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("call from +15551234567 ended", "call from +1********67 ended"),
        ("room call-+4930123456", "room call-+4*******56"),
        (f"joined with {JWT}.", "joined with [token]."),
        ("wss://lk/rtc?access_token=" + JWT + "&x=1", "wss://lk/rtc?access_token=[token]&x=1"),
        (f"GET /twilio/{'aB3-_x' * 16} HTTP/1.1", "GET /twilio/[token] HTTP/1.1"),
        ("POST /v2/hooks/plivo/whk_7Ks9jD2mL4wQvB1xX3zP8C5hR6gN9fT0?roomId=a", "POST /v2/hooks/plivo/[key]?roomId=a"),
        ("took 12345678 microseconds", "took 12345678 microseconds"),
    ],
)
def test_text_loses_numbers_and_tokens_wherever_they_stand(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed


def test_a_registered_secret_is_replaced_everywhere(out: io.StringIO) -> None:
    never_log("hunter2hunter2")
    structlog.get_logger().info("failed for hunter2hunter2", why=["hunter2hunter2"], more={"a": "xhunter2hunter2x"})
    logging.getLogger("library").warning("url %s", "https://x?key=hunter2hunter2")
    assert "hunter2hunter2" not in out.getvalue()
    assert out.getvalue().count("[secret]") == 4


def test_a_secret_in_a_traceback_is_replaced(out: io.StringIO) -> None:
    never_log("hunter2hunter2")
    try:
        raise ValueError("wrong password hunter2hunter2 of +15551234567")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed")
    assert "hunter2hunter2" not in out.getvalue()
    assert "5551234567" not in out.getvalue()
    assert out.getvalue().count("ValueError") >= 2


@pytest.mark.parametrize("short", ["", "abc", "12345"])
def test_a_value_too_short_to_be_a_secret_would_only_garble_the_log(short: str, out: io.StringIO) -> None:
    never_log(short)
    structlog.get_logger().info("abc 12345")
    assert lines_of(out)[0]["event"] == "abc 12345"


@pytest.mark.parametrize(
    "key", ["token", "access_token", "api_secret", "Authorization", "X-Twilio-Signature", "api_key", "connect_url"]
)
def test_a_key_that_names_a_secret_hides_its_value(key: str, out: io.StringIO) -> None:
    structlog.get_logger().info("request", **{key: "value-of-it"}, headers={key: "value-of-it"})
    assert "value-of-it" not in out.getvalue()


@pytest.mark.parametrize("key", ["from", "to", "identity", "from_number", "caller"])
@pytest.mark.parametrize(
    "number",
    ["+15551234567", "15551234567", "(555) 123-4567", "sip_15551234567", "sip:15551234567@example.com"],
)
def test_a_key_that_holds_a_number_masks_any_spelling(key: str, number: str, out: io.StringIO) -> None:
    structlog.get_logger().info("call", **{key: number})
    assert number not in out.getvalue()
    assert "1234567" not in out.getvalue()


@pytest.mark.parametrize("identity", ["twilio_0123456789ab", "guest", "agent-7", "room 12"])
def test_an_identity_without_a_number_stays_readable(identity: str, out: io.StringIO) -> None:
    structlog.get_logger().info("call", identity=identity)
    assert lines_of(out)[0]["identity"] == identity


async def test_the_call_is_on_every_line_also_of_the_tasks_it_starts(out: io.StringIO) -> None:
    log = structlog.get_logger()

    async def deeper() -> None:
        log.info("in a task")
        logging.getLogger("library").warning("in a library")

    with bind_call("call_1"):
        task = asyncio.create_task(deeper())
        log.info("here")
    await task
    log.info("outside")
    assert {line["event"]: line.get("call_id") for line in lines_of(out)} == {
        "here": "call_1",
        "in a task": "call_1",
        "in a library": "call_1",
        "outside": None,
    }


def test_json_lines_have_level_and_a_utc_time(out: io.StringIO) -> None:
    structlog.get_logger().warning("careful", n=1)
    (line,) = lines_of(out)
    assert (line["level"], line["event"], line["n"]) == ("warning", "careful", 1)
    assert line["timestamp"].endswith("Z")


def test_pretty_lines_are_for_people() -> None:
    stream = io.StringIO()
    configure_logging("info", "pretty", stream)
    with bind_call("call_1"):
        structlog.get_logger().info("call active", milliseconds=12)
    (line,) = stream.getvalue().splitlines()
    assert not line.startswith("{")
    assert "call active" in line
    assert "call_id=call_1" in line
    assert "milliseconds=12" in line


def test_auto_is_pretty_on_a_terminal_only() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure_logging("info", "auto", stream)
        structlog.get_logger().info("hello")
    assert not terminal.getvalue().startswith("{")
    assert pipe.getvalue().startswith("{")


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure_logging("warning", "json", stream)
    structlog.get_logger().info("small talk")
    logging.getLogger("library").info("small talk")
    structlog.get_logger().warning("careful")
    assert [line["event"] for line in lines_of(stream)] == ["careful"]


def test_statements_of_the_database_are_not_logged_even_at_debug(out: io.StringIO) -> None:
    """A statement has its values, and a number without a plus cannot be told from any other."""
    logging.getLogger("redis.connection").debug("executing HSET connector:call:1 from_number 15551234567")
    assert out.getvalue() == ""


@pytest.mark.parametrize("kind", ["text", "byte"])
def test_streams_of_the_room_that_nobody_reads_are_no_news(out: io.StringIO, kind: str) -> None:
    """As `livekit.rtc.room` logs them, by the root logger, four a second while an agent speaks."""
    said = f"ignoring {kind} stream with topic '%s', no callback attached"
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logging.info(said, "lk.transcription")
    logging.info("ignoring nothing")
    assert [line["event"] for line in lines_of(stream)] == ["ignoring nothing"]
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    logging.info(said, "lk.transcription")
    assert [line["level"] for line in lines_of(stream)] == ["debug"]


@pytest.mark.parametrize("kind", ["text", "byte"])
def test_the_sdk_says_so_in_the_words_that_are_filtered(kind: str) -> None:
    source = inspect.getsource(room)
    assert f'"ignoring {kind} stream with topic' in source
