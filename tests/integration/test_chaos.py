"""The short forms of `make chaos` and `make demo ARGS=--crash`: no call is lost, and no gap is long."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from demo.process import CHECKOUT

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]


async def output_of(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    except BaseException:
        process.terminate()  # It stops its servers.
        await process.wait()
        raise
    return process.returncode, printed.decode()


@pytest.mark.parametrize("provider", ["twilio", "telnyx", "plivo"])
async def test_a_call_goes_on_when_its_process_is_killed(provider: str, tmp_path: Path) -> None:
    status, printed = await output_of("demo", "--crash", "--provider", provider, "--out", str(tmp_path))
    assert status == 0, printed
    assert (tmp_path / "crash.png").stat().st_size


async def test_calls_outlive_every_outage() -> None:
    status, printed = await output_of("demo.chaos", "--calls", "4")
    assert status == 0, printed
