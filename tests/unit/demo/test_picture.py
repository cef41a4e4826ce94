from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import picture
from demo.picture import Delay, Span, draw_call

RATE = 8000


def tone(begins: float, lasts: float, total: float = 4.0) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    sound = np.zeros(round(total * RATE), np.int16)
    start, count = round(begins * RATE), round(lasts * RATE)
    sound[start : start + count] = 9000 * np.sin(np.arange(count))
    return sound


def columns(image: Image.Image, color: tuple[int, int, int], top: int) -> list[int]:
    """Columns of the panel at `top` in which the waveform's colour rises above the middle line."""
    pixels = np.asarray(image)[top + 10 : top + picture._PANEL_HEIGHT // 2 - 4]
    return [int(x) for x in np.flatnonzero((pixels == color).all(axis=2).any(axis=0))]


def test_waves_stand_where_they_sounded_and_the_delay_between_them(tmp_path: Path) -> None:
    path = tmp_path / "call.png"
    delay = Delay(said_at=1.0, heard_at=1.5, lasts=1.0)
    span = Span("greeting", 0.0, 0.5)
    draw_call(path, tone(1, 1), tone(1.5, 1), RATE, title="A call", delay=delay, heard_spans=[span])
    with Image.open(path) as file:
        image = file.convert("RGB")
    assert image.size == (1400, 720)
    width = 1400 - picture._LEFT - picture._RIGHT
    for color, top, begins in (
        (picture._SAID, picture._SAID_TOP, 1.0),
        (picture._HEARD, picture._HEARD_TOP, 1.5),
    ):
        found = columns(image, color, top)
        assert found[0] == pytest.approx(picture._LEFT + begins / 4 * width, abs=3)
        assert found[-1] == pytest.approx(picture._LEFT + (begins + 1) / 4 * width, abs=3)
    assert delay.label == "500 ms"


@pytest.mark.parametrize("seconds", [0.0, 0.01, 75.0])
def test_any_length_can_be_drawn(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "call.png"
    sound = np.zeros(round(seconds * RATE), np.int16)
    draw_call(path, sound, sound, RATE, title="Nothing", delay=Delay(seconds, seconds, 1))
    with Image.open(path) as image:
        assert image.size == (1400, 720)
