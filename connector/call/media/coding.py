"""How a stream's bytes become samples, and samples bytes: one `Coding` for each format a carrier may choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from connector.audio import g711, levels
from connector.carriers.codec import MediaFormat
from connector.carriers.events import Encoding
from connector.errors import CarrierProtocolError

FRAMES_A_SECOND = 50
PIECES_A_SECOND = 100
_INT16 = np.dtype(np.int16)
_UNACCEPTABLE = 1008


@dataclass(frozen=True, slots=True)
class Coding:
    """Samples are int16, mono, `rate` a second."""

    rate: int
    decode: Callable[[bytes], NDArray[np.int16]]
    encode: Callable[[NDArray[np.int16]], bytes]
    silent_min: int
    silent_max: int
    """A frame with no sample outside these bounds need not be sent: the carrier plays as much of nothing by itself."""

    @property
    def frame_samples(self) -> int:
        """20 ms: what comes from a room at once."""
        return self.rate // FRAMES_A_SECOND

    @property
    def piece_bytes(self) -> int:
        """10 ms of int16: what a room takes at once."""
        return self.rate // PIECES_A_SECOND * _INT16.itemsize


def coding_of(media: MediaFormat) -> Coding:
    """CarrierProtocolError for a rate at which 10 ms, the frame of a room, are no whole number of samples."""
    if media.rate < PIECES_A_SECOND or media.rate % PIECES_A_SECOND:
        raise CarrierProtocolError(f"audio of {media.rate} samples a second cannot be carried", _UNACCEPTABLE)
    match media.encoding:
        case Encoding.MULAW:
            return Coding(media.rate, g711.ulaw_decode, g711.ulaw_encode, levels.SILENT_MIN, levels.SILENT_MAX)
        case Encoding.ALAW:
            return Coding(
                media.rate, g711.alaw_decode, g711.alaw_encode, levels.ALAW_SILENT_MIN, levels.ALAW_SILENT_MAX
            )
        case Encoding.L16:
            # Nothing is exactly silent but zero, yet what decodes Opus leaves a noise of one or two around it: the
            # bounds of mu-law, which is as little as any telephone has ever carried.
            return Coding(media.rate, _linear_decode, _linear_encode, levels.SILENT_MIN, levels.SILENT_MAX)


def _linear_decode(data: bytes) -> NDArray[np.int16]:
    # Half a sample would make noise of all behind it; codecs refuse such a frame, and count it.
    return np.frombuffer(data, _INT16, len(data) // _INT16.itemsize)


def _linear_encode(pcm: NDArray[np.int16]) -> bytes:
    return pcm.tobytes()
