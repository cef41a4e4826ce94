"""Text to speech without a network: the same text gives the same sound, sample for sample, in any process."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from carrier_simulator.resample import resample
from demo.espeak import SpeechError
from demo.process import CHECKOUT
from demo.sound import TELEPHONE_RATE, normalise, trim

__all__ = ["SpeechError", "speak"]


@lru_cache(maxsize=64)
def speak(
    text: str,
    *,
    voice: str = "en-us",
    words_per_minute: int = 165,
    pitch: int = 50,
    rate: int = TELEPHONE_RATE,
) -> NDArray[np.int16]:
    """Synthesises a text: read-only mono int16 at `rate`, without silence at both ends, at a constant level.

    `pitch` is 0 to 99; a variant such as `en-us+f3` is another voice. Takes about a tenth of a second, so a coroutine
    must call it in a thread. Raises SpeechError if synthesis fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "demo.espeak", voice, str(words_per_minute), str(pitch)],
        input=text.encode(),
        capture_output=True,
        cwd=CHECKOUT,
        check=False,
    )
    if done.returncode != 0:
        raise SpeechError(done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}")
    source, _, samples = done.stdout.partition(b"\n")
    spoken = trim(np.frombuffer(samples, np.int16))
    if not len(spoken):
        raise SpeechError(f"no sentence to say in {text!r}")
    sound = normalise(resample(spoken, int(source), rate))
    sound.flags.writeable = False
    return sound
