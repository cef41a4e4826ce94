"""The process's logging as the service sets it up, into a text that a test reads; afterwards as it was before."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from connector import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in (None, *logging.root.manager.loggerDict)}
    handlers, configuration, secrets = list(root.handlers), structlog.get_config(), set(logs._secrets)
    try:
        yield
    finally:
        structlog.configure(**configuration)
        root.handlers[:] = handlers
        for name in logging.root.manager.loggerDict:
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
        root.setLevel(levels[None])
        logs._secrets.clear()
        logs._secrets.update(secrets)


@contextmanager
def captured_logs(level: str = "debug", form: str = "json") -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with logging_as_before():
        logs.configure_logging(level, form, stream)
        yield stream


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    """Of a log in JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]
