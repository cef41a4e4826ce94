"""Draws the said and the heard sound, one above the other, and the delay between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_Color = tuple[int, int, int]
_PAPER: _Color = (250, 250, 248)
_PANEL: _Color = (255, 255, 255)
_LINE: _Color = (222, 222, 218)
_INK: _Color = (38, 42, 48)
_FAINT: _Color = (112, 118, 126)
_SAID: _Color = (38, 100, 190)
_HEARD: _Color = (196, 88, 28)
_MARK: _Color = (18, 128, 84)
_GAP: _Color = (176, 32, 48)

_WIDTH, _HEIGHT = 1400, 720
_LEFT, _RIGHT = 110, 40
_SAID_TOP, _HEARD_TOP, _PANEL_HEIGHT = 96, 386, 220


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled section of one waveform, in seconds."""

    label: str
    begins: float
    lasts: float


@dataclass(frozen=True, slots=True)
class Delay:
    """The same sound in both panels, in seconds: said at `said_at`, heard at `heard_at`, with the length `lasts`."""

    said_at: float
    heard_at: float
    lasts: float

    @property
    def label(self) -> str:
        return f"{(self.heard_at - self.said_at) * 1000:.0f} ms"


class _Sheet:
    """The canvas, and the position of a moment on it."""

    def __init__(self, seconds: float) -> None:
        self.image = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.seconds = max(seconds, 0.1)
        self.width = _WIDTH - _LEFT - _RIGHT

    def x(self, moment: float) -> float:
        return _LEFT + self.width * min(max(moment / self.seconds, 0.0), 1.0)

    def text(self, at: tuple[float, float], text: str, size: int, color: _Color = _INK, anchor: str = "la") -> None:
        self.draw.text(at, text, fill=color, font=ImageFont.load_default(size), anchor=anchor)

    def text_width(self, text: str, size: int) -> float:
        return self.draw.textlength(text, font=ImageFont.load_default(size))


def draw_call(
    path: Path,
    said: NDArray[np.int16],
    heard: NDArray[np.int16],
    rate: int,
    *,
    title: str,
    delay: Delay | None = None,
    heard_spans: Sequence[Span] = (),
    gap: Span | None = None,
) -> None:
    """Writes a PNG. `said` and `heard` are mono int16 at `rate` and begin at the same moment. `gap`: a time in which
    nothing was heard."""
    sheet = _Sheet(max(len(said), len(heard)) / rate)
    sheet.text((_LEFT, 24), title, 26)
    _panel(sheet, _SAID_TOP, "said")
    _panel(sheet, _HEARD_TOP, "heard")
    _axis(sheet)
    if delay:
        _shade(sheet, _SAID_TOP, delay.said_at, delay.lasts)
        _shade(sheet, _HEARD_TOP, delay.heard_at, delay.lasts)
    if gap:
        _shade(sheet, _HEARD_TOP, gap.begins, gap.lasts, (250, 220, 222))
    _wave(sheet, _SAID_TOP, said, rate, _SAID)
    _wave(sheet, _HEARD_TOP, heard, rate, _HEARD)
    for span in heard_spans:
        _name(sheet, span)
    if gap:
        middle = sheet.x(gap.begins + gap.lasts / 2)
        _label(sheet, middle, _HEARD_TOP + 18, gap.label, _GAP)
    if delay:
        _bracket(sheet, delay)
    sheet.image.save(path, "PNG")


def _panel(sheet: _Sheet, top: int, name: str) -> None:
    box = (_LEFT, top, _WIDTH - _RIGHT, top + _PANEL_HEIGHT)
    sheet.draw.rectangle(box, fill=_PANEL, outline=_LINE)
    middle = top + _PANEL_HEIGHT // 2
    sheet.text((_LEFT - 16, middle - 12), "caller", 18, _FAINT, "rm")
    sheet.text((_LEFT - 16, middle + 12), name, 22, _SAID if name == "said" else _HEARD, "rm")


def _axis(sheet: _Sheet) -> None:
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if sheet.seconds / s <= 16), 300)
    bottom = _HEARD_TOP + _PANEL_HEIGHT
    for index in range(int(sheet.seconds / step + 1e-9) + 1):
        x = sheet.x(index * step)
        for top in (_SAID_TOP, _HEARD_TOP):
            sheet.draw.line((x, top, x, top + _PANEL_HEIGHT), fill=_LINE)
        sheet.draw.line((x, bottom, x, bottom + 8), fill=_FAINT)
        sheet.text((x, bottom + 14), f"{index * step:g}", 18, _FAINT, "ma")
    sheet.text((_LEFT + sheet.width / 2, bottom + 44), "seconds since the stream began", 18, _FAINT, "ma")


def _shade(sheet: _Sheet, top: int, begins: float, lasts: float, color: _Color = (226, 242, 234)) -> None:
    box = (sheet.x(begins), top + 1, sheet.x(begins + lasts), top + _PANEL_HEIGHT - 1)
    sheet.draw.rectangle(box, fill=color)


def _wave(sheet: _Sheet, top: int, sound: NDArray[np.int16], rate: int, color: _Color) -> None:
    """Draws one vertical line per pixel, from the lowest to the highest sample in it."""
    middle, reach = top + _PANEL_HEIGHT / 2, _PANEL_HEIGHT / 2 - 36
    loudest = max(1, int(np.abs(sound.astype(np.int32)).max(initial=0)))
    end = int(sheet.x(len(sound) / rate)) if len(sound) else _LEFT
    edges = (np.arange(end - _LEFT + 1) / sheet.width * sheet.seconds * rate).astype(int)
    for column, (first, last) in enumerate(pairwise(edges.tolist())):
        piece = sound[first : max(last, first + 1)]
        if len(piece):
            high, low = int(piece.max()) / loudest, int(piece.min()) / loudest
            x = _LEFT + column
            sheet.draw.line((x, middle - high * reach, x, middle - low * reach), fill=color)


def _name(sheet: _Sheet, span: Span) -> None:
    left, right = sheet.x(span.begins), sheet.x(span.begins + span.lasts)
    y = _HEARD_TOP + _PANEL_HEIGHT - 10
    sheet.draw.line((left, y, right, y), fill=_HEARD, width=2)
    for x in (left, right):
        sheet.draw.line((x, y - 6, x, y + 6), fill=_HEARD, width=2)
    _label(sheet, (left + right) / 2, y - 12, span.label, _HEARD)


def _bracket(sheet: _Sheet, delay: Delay) -> None:
    """Draws dashed lines from both starts into the gap between the panels, and the delay there."""
    said, heard = sheet.x(delay.said_at), sheet.x(delay.heard_at)
    gap_top, gap_bottom = _SAID_TOP + _PANEL_HEIGHT, _HEARD_TOP
    y = (gap_top + gap_bottom) // 2
    _dashed(sheet, said, _SAID_TOP, y + 12)
    _dashed(sheet, heard, y - 12, _HEARD_TOP + _PANEL_HEIGHT)
    sheet.draw.line((said, y, heard, y), fill=_MARK, width=4)
    for x in (said, heard):
        sheet.draw.line((x, y - 12, x, y + 12), fill=_MARK, width=3)
    text = f"{delay.label} from mouth to ear, through the agent's echo"
    right = heard + 16
    if right + sheet.text_width(text, 24) < _WIDTH - _RIGHT:
        sheet.text((right, y), text, 24, _MARK, "lm")
    else:
        sheet.text((said - 16, y), text, 24, _MARK, "rm")


def _dashed(sheet: _Sheet, x: float, top: float, bottom: float) -> None:
    y = top
    while y < bottom:
        sheet.draw.line((x, y, x, min(y + 8, bottom)), fill=_MARK, width=2)
        y += 14


def _label(sheet: _Sheet, x: float, y: float, text: str, color: _Color) -> None:
    half = sheet.text_width(text, 18) / 2
    x = min(max(x, _LEFT + half + 8), _WIDTH - _RIGHT - half - 8)
    sheet.draw.rectangle((x - half - 6, y - 13, x + half + 6, y + 11), fill=_PANEL)
    sheet.text((x, y), text, 18, color, "mm")
