"""The demo's texts and voices. A text gives the same sound in every process, so it can be found in a recording."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.sound import TELEPHONE_RATE
from demo.speech import speak

AGENT_NAME = "echo"
DTMF_TOPIC = "demo.dtmf"
"""Topic of data messages that make the agent send DTMF; the payload contains the digits."""
AGENT_VOICE = "en-us+f3"
GREETING = "Hello, and welcome. I will say back whatever you say."
CALLER_VOICE = "en-us"
SENTENCE = "Good morning. I would like to book a table for two, please."


def greeting(text: str = GREETING, rate: int = TELEPHONE_RATE) -> NDArray[np.int16]:
    """The agent's voice: mono int16 at `rate`."""
    return speak(text, voice=AGENT_VOICE, pitch=60, rate=rate)


def sentence(text: str = SENTENCE, rate: int = TELEPHONE_RATE) -> NDArray[np.int16]:
    """The caller's voice: mono int16 at `rate`."""
    return speak(text, voice=CALLER_VOICE, rate=rate)
