"""Decodes a stream's bytes to samples and encodes samples to bytes: one `Coding` for each format of a carrier."""

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
    """Samples are int16, mono, at `rate` samples per second."""

    rate: int
    decode: Callable[[bytes], NDArray[np.int16]]
    encode: Callable[[NDArray[np.int16]], bytes]
    silent_min: int
    silent_max: int
    """A frame with all samples within these bounds need not be sent: without audio the carrier plays silence."""

    @property
    def frame_samples(self) -> int:
        """Samples in 20 ms, the frame that a room delivers."""
        return self.rate // FRAMES_A_SECOND

    @property
    def piece_bytes(self) -> int:
        """Bytes in 10 ms of int16, the frame that a room accepts."""
        return self.rate // PIECES_A_SECOND * _INT16.itemsize


def coding_of(media: MediaFormat) -> Coding:
    """The coding of a format. Raises CarrierProtocolError if 10 ms, the frame of a room, are not a whole number of
    samples."""
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
            # Only zero is exact silence here, but an Opus decoder leaves noise of one or two around it. So we take the
            # bounds of mu-law, the lowest level that a telephone has ever carried.
            return Coding(media.rate, _linear_decode, _linear_encode, levels.SILENT_MIN, levels.SILENT_MAX)


def _linear_decode(data: bytes) -> NDArray[np.int16]:
    # Half a sample would turn all later samples into noise. The codecs refuse and count such a frame.
    return np.frombuffer(data, _INT16, len(data) // _INT16.itemsize)


def _linear_encode(pcm: NDArray[np.int16]) -> bytes:
    return pcm.tobytes()
