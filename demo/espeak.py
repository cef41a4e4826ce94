"""espeak-ng through ctypes, in its own process: `python -m demo.espeak VOICE WPM PITCH < text`.

Writes the sample rate as a line, then mono int16 samples in the machine's byte order. It needs its own
process because the library keeps state in globals, and flutter and noise carry over from one sentence to the next. Only
the first sentence of a process sounds the same every time, and the demo finds sentences by their waveform.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_short, c_size_t, c_uint, c_void_p
from pathlib import Path

import espeakng_loader

# Values from espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _PITCH = 1, 3
_LONGEST_PATH = 120
"""Bytes. espeak-ng keeps the path of its data in a buffer of 160 bytes and appends file names to it."""

_SynthCallback = CFUNCTYPE(c_int, POINTER(c_short), c_int, c_void_p)


class SpeechError(RuntimeError):
    """espeak-ng cannot be loaded or fails to speak."""


def synthesise(text: str, voice: str, words_per_minute: int, pitch: int) -> tuple[int, bytes]:
    """Returns (sample rate, mono int16 samples)."""
    library = _load()
    spoken = bytearray()

    def take(samples: ctypes._Pointer[c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, count * 2))
        return 0

    callback = _SynthCallback(take)
    with _data_directory() as data:
        rate = int(library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _INITIALIZE_DONT_EXIT))
        if rate <= 0:
            raise SpeechError("espeak-ng cannot find its data")
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SpeechError(f"espeak-ng has no voice {voice!r}")
        library.espeak_SetParameter(_RATE, words_per_minute, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        status = library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _CHARS_UTF8, byref(c_uint()), None)
    if status != 0 or not spoken:
        raise SpeechError(f"espeak-ng did not speak (status {status})")
    return rate, bytes(spoken)


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise SpeechError(f"cannot load espeak-ng: {error}") from error
    library.espeak_Initialize.argtypes = [c_int, c_int, c_char_p, c_int]
    library.espeak_Initialize.restype = c_int
    library.espeak_SetSynthCallback.argtypes = [_SynthCallback]
    library.espeak_SetVoiceByName.argtypes = [c_char_p]
    library.espeak_SetVoiceByName.restype = c_int
    library.espeak_SetParameter.argtypes = [c_int, c_int, c_int]
    library.espeak_SetParameter.restype = c_int
    sizes = (c_char_p, c_size_t, c_uint, c_int, c_uint, c_uint)
    library.espeak_Synth.argtypes = (*sizes, POINTER(c_uint), c_void_p)
    library.espeak_Synth.restype = c_int
    return library


@contextmanager
def _data_directory() -> Iterator[Path]:
    """The directory that contains `espeak-ng-data`, or a temporary one with a link to it if the path is too long."""
    parent = Path(espeakng_loader.get_data_path()).parent
    if len(str(parent).encode()) <= _LONGEST_PATH:
        yield parent
        return
    with tempfile.TemporaryDirectory(prefix="espeak-") as short:
        link = Path(short)
        (link / "espeak-ng-data").symlink_to(parent / "espeak-ng-data", target_is_directory=True)
        yield link


def main() -> None:
    voice, words_per_minute, pitch = sys.argv[1:]
    try:
        rate, spoken = synthesise(sys.stdin.read(), voice, int(words_per_minute), int(pitch))
    except SpeechError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(f"{rate}\n".encode() + spoken)


if __name__ == "__main__":
    main()
