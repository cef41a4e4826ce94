"""`make chaos` in short: live calls outlive their processes, a hand-over and the load balancer."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from demo.chaos import run, short

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

CALLS = 2
LONGEST_GAP = 5.0
"""Seconds, as the grace of a lost stream. `make chaos` holds two, but a busy machine joins rooms slowly."""


async def test_calls_outlive_their_processes() -> None:
    printed = io.StringIO()
    status = await run(CALLS, Console(file=printed, width=200), short, LONGEST_GAP)
    assert status == 0, printed.getvalue()
    print(printed.getvalue())
