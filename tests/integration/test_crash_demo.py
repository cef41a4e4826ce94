"""`make demo ARGS=--crash`: a call outlives its process, and the gap is short."""

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


async def test_a_call_goes_on_when_its_process_is_killed(tmp_path: Path) -> None:
    status, printed = await output_of("demo", "--crash", "--out", str(tmp_path))
    assert status == 0, printed
    assert (tmp_path / "crash.png").stat().st_size
