"""Structured logs: the call id on every line of a call, phone numbers masked, secrets never.

Use `structlog.get_logger()` anywhere; `bind_call` puts the call id into the context of the running task,
and tasks started from it inherit it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, TextIO

import structlog

from connector import numbers

_PHONE = re.compile(r"(?<![A-Za-z0-9])\+?\d[\d ().-]{5,18}\d(?![A-Za-z0-9])")
"""A probable phone number in a field that usually contains one; also matches in `sip_1555…` and `sip:1555…@host`."""
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")
_LONG_TOKEN = re.compile(r"[\w-]{80,}")
"""Matches the secret part of a connect_url; no useful log text has words of this length."""
_WEBHOOK_KEY = re.compile(r"whk_\w+")
_PHONE_KEYS = frozenset({"from", "to", "from_number", "to_number", "caller", "called", "identity", "name"})
_SECRET_KEYS = re.compile(
    r"token|secret|password|authorization|signature|api_key|connect_url|webhook_key", re.IGNORECASE
)

_secrets: set[str] = set()


def mask_phone(number: str) -> str:
    """`+15551234567` → `+1*******67`: enough to distinguish callers, not enough to call them."""
    digits = sum(c.isdigit() for c in number)
    if digits < 6:
        return number
    keep_head, keep_tail, seen, out = 1, digits - 2, 0, []
    for char in number:
        if char.isdigit():
            out.append(char if seen < keep_head or seen >= keep_tail else "*")
            seen += 1
        else:
            out.append(char)
    return "".join(out)


def never_log(*values: str) -> None:
    """Replaces these values in all later log lines."""
    _secrets.update(value for value in values if len(value) >= 6)


def scrub(text: str) -> str:
    """Masks phone numbers in E.164 form, signed tokens and registered secrets in a text."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, "[secret]")
    text = _WEBHOOK_KEY.sub("[key]", _LONG_TOKEN.sub("[token]", _JWT.sub("[token]", text)))
    return numbers.IN_TEXT.sub(lambda m: mask_phone(m.group()), text)


def _scrub_value(key: str, value: Any) -> Any:
    if _SECRET_KEYS.search(key):
        return "[secret]"
    if isinstance(value, str):
        if key in _PHONE_KEYS:
            return _PHONE.sub(lambda m: mask_phone(m.group()), scrub(value))
        return scrub(value)
    if isinstance(value, dict):
        return {k: _scrub_value(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrub_value(key, v) for v in value]
    if value is None or isinstance(value, int | float | bool):
        return value
    return scrub(str(value))


def scrub_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor; the last one before rendering, so that it gets all fields."""
    return {key: _scrub_value(key, value) for key, value in event.items()}


def bind_call(call_id: str, **more: str) -> AbstractContextManager[None]:
    """Adds `call_id` to every line logged inside the block and by tasks that the block starts."""
    return structlog.contextvars.bound_contextvars(call_id=call_id, **more)


class _Calm(logging.Filter):
    """Logs malformed HTTP requests as one INFO line without a traceback: port scanners send them to any open port."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if type(error).__module__ == "aiohttp.http_exceptions":
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
        return True


class _UnreadStreams(logging.Filter):
    """Lowers the SDK's messages about text and byte streams without a reader to DEBUG. A transcribing agent opens four
    streams per second, and the messages are useful only for debugging the SDK."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(("ignoring text stream with topic", "ignoring byte stream with topic")):
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger().isEnabledFor(logging.DEBUG)


_calm = _Calm()
_unread_streams = _UnreadStreams()


def configure_logging(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """`form`: `pretty`, `json`, or `auto` (pretty on a terminal). Standard-library loggers are included."""
    out = stream or sys.stderr
    pretty = form == "pretty" or (form == "auto" and out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if pretty else "iso", utc=not pretty),
    ]
    last: Iterable[Any] = (
        (
            structlog.processors.format_exc_info,
            scrub_event,
            structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=28),
        )
        if pretty
        else (structlog.processors.format_exc_info, scrub_event, structlog.processors.JSONRenderer())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The SDK logs these messages with the root logger. Registering readers would require knowing all topic names.
    root.addFilter(_unread_streams)
    for noisy in ("aiohttp.access", "asyncio", "twirp", "twilio.async_http_client", "redis"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_calm)
    # The SDK logs each step of ICE and signalling; only its warnings are useful for an operator.
    logging.getLogger("livekit").setLevel(logging.WARNING if level != "debug" else logging.DEBUG)
