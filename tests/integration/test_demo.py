"""`make demo`, from its first line to its exit status, over each carrier."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from demo.providers import ACCOUNTS
from demo.run import Options, run
from demo.sound import read_wav


@pytest.mark.alone
@pytest.mark.timeout(120)
@pytest.mark.parametrize("provider", ACCOUNTS)
async def test_the_demo_passes_and_leaves_its_recordings(provider: str, tmp_path: Path) -> None:
    output = io.StringIO()
    status = await run(Options(tmp_path, provider=provider), Console(file=output, width=200))
    told = output.getvalue()
    assert status == 0, told
    assert told.count("\nok ") == 6
    name = provider.capitalize()
    assert f"Connect{name}Call gave a connect_url" in told
    assert f"{name} completed the call without errors (completed, no errors)" in told
    said, heard = read_wav(tmp_path / "said.wav"), read_wav(tmp_path / "heard.wav")
    assert said[1] == heard[1] == 8000
    assert abs(len(said[0]) - len(heard[0])) < 8000
    with Image.open(tmp_path / "waveforms.png") as picture:
        assert picture.size > (1000, 500)
        # Something is drawn: what was said in one color, what was heard in another.
        colors = picture.convert("RGB").getcolors(picture.width * picture.height)
        assert len(colors or []) > 10
