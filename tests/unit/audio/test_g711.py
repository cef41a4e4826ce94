"""The tables against two references that share nothing with them: G.711's own tables of values, and bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from connector.audio import g711

Pcm = NDArray[np.int16]
ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)


class Spec(NamedTuple):
    """One sign of a table of G.711: a magnitude from `decisions[n]` up is sent as n and comes out as `outputs[n]`."""

    shift: int
    """From 16 bits to the units of the table."""
    positive_mask: int
    negative_mask: int
    decisions: tuple[int, ...]
    outputs: tuple[int, ...]


def segments(*starts_and_steps: tuple[int, int]) -> Iterator[int]:
    """Sixteen decision values of each segment, the first one past its start."""
    for start, step in starts_and_steps:
        yield from range(start + step, start + 17 * step, step)


def middles(decisions: tuple[int, ...]) -> Iterator[int]:
    return ((low + high) // 2 for low, high in pairwise(decisions))


# Tables 2a and 2b, in 14-bit units. The first interval is half a step wide, and its output is zero.
_ULAW_DECISIONS = (0, 1, *range(3, 32, 2))
_ULAW_DECISIONS += (*segments((31, 4), (95, 8), (223, 16), (479, 32), (991, 64), (2015, 128), (4063, 256)),)
ULAW = Spec(2, 0xFF, 0x7F, _ULAW_DECISIONS, (0, *middles(_ULAW_DECISIONS[1:])))

# Tables 1a and 1b, in 13-bit units.
_ALAW_DECISIONS = (*range(0, 65, 2),)
_ALAW_DECISIONS += (*segments((64, 4), (128, 8), (256, 16), (512, 32), (1024, 64), (2048, 128)),)
ALAW = Spec(3, 0xD5, 0x55, _ALAW_DECISIONS, (*middles(_ALAW_DECISIONS),))


def test_the_specifications_here_have_the_values_that_g711_prints() -> None:
    assert len(ULAW.decisions) == len(ALAW.decisions) == 129
    assert ULAW.decisions[-1] == 8159
    assert ALAW.decisions[-1] == 4096
    assert (ULAW.outputs[:4], ULAW.outputs[16:18], ULAW.outputs[127]) == ((0, 2, 4, 6), (33, 37), 8031)
    assert (ALAW.outputs[:3], ALAW.outputs[32:34], ALAW.outputs[127]) == ((1, 3, 5), (66, 70), 4032)


def by_search(spec: Spec, sample: int) -> int:
    """The code by walking the decision values upwards; a value on a decision belongs above it, seen from below."""
    magnitude = (~sample if sample < 0 else sample) >> spec.shift
    code = 0
    while code < 127 and magnitude >= spec.decisions[code + 1]:
        code += 1
    return code ^ (spec.negative_mask if sample < 0 else spec.positive_mask)


def by_value(spec: Spec, code: int) -> int:
    positive = bool(code & 0x80)
    index = code ^ (spec.positive_mask if positive else spec.negative_mask)
    value = spec.outputs[index] << spec.shift
    return value if positive else -value


def ulaw_bit_by_bit(sample: int) -> int:
    """G.711's rule in words: add 33, find the highest bit, keep the four bits after it, invert everything."""
    negative = sample < 0
    magnitude = min((~sample if negative else sample) >> 2, 8158) + 33
    segment = 0
    while magnitude >> (segment + 6):
        segment += 1
    bits = [(magnitude >> (segment + 1 + n)) & 1 for n in range(4)]
    code = sum(bit << n for n, bit in enumerate(bits)) + 16 * segment + (128 if negative else 0)
    return 255 - code


def alaw_bit_by_bit(sample: int) -> int:
    """Segment = position of the highest bit; the four bits after it; every even bit inverted; 1 is positive."""
    negative = sample < 0
    magnitude = (~sample if negative else sample) >> 4
    segment = max(magnitude.bit_length() - 4, 0)
    shift = segment - 1 if segment else 0
    code = 16 * segment + (magnitude >> shift) % 16 + (0 if negative else 128)
    return code ^ 0b01010101


class Law(NamedTuple):
    encode: Callable[[Pcm], bytes]
    decode: Callable[[bytes], Pcm]
    spec: Spec
    bit_by_bit: Callable[[int], int]


LAWS = [
    Law(g711.ulaw_encode, g711.ulaw_decode, ULAW, ulaw_bit_by_bit),
    Law(g711.alaw_encode, g711.alaw_decode, ALAW, alaw_bit_by_bit),
]
laws = pytest.mark.parametrize("law", LAWS, ids=["ulaw", "alaw"])


@laws
class TestEveryValue:
    def test_encode_is_the_table_of_g711(self, law: Law) -> None:
        assert law.encode(ALL_SAMPLES) == bytes(by_search(law.spec, int(x)) for x in ALL_SAMPLES)

    def test_encode_is_the_rule_of_g711(self, law: Law) -> None:
        assert law.encode(ALL_SAMPLES) == bytes(law.bit_by_bit(int(x)) for x in ALL_SAMPLES)

    def test_decode_is_the_table_of_g711(self, law: Law) -> None:
        assert law.decode(ALL_CODES).tolist() == [by_value(law.spec, code) for code in range(256)]

    def test_decoding_and_encoding_again_changes_nothing(self, law: Law) -> None:
        again = law.encode(law.decode(ALL_CODES))
        # Mu-law has two zeros; the negative one comes back as the positive one.
        expected = ALL_CODES if law.spec is ALAW else ALL_CODES.replace(b"\x7f", b"\xff")
        assert again == expected

    def test_encoding_a_second_time_changes_nothing(self, law: Law) -> None:
        once = law.decode(law.encode(ALL_SAMPLES))
        assert np.array_equal(law.decode(law.encode(once)), once)

    def test_louder_never_becomes_quieter(self, law: Law) -> None:
        assert np.all(np.diff(law.decode(law.encode(ALL_SAMPLES)).astype(np.int32)) >= 0)


@pytest.mark.parametrize(
    ("encode", "sample", "code"),
    [
        (g711.ulaw_encode, 0, 0xFF),
        (g711.ulaw_encode, 3, 0xFF),
        (g711.ulaw_encode, 4, 0xFE),
        # Sun's g711.c gives 0x7E, a step away from silence, for -1 to -4.
        (g711.ulaw_encode, -1, 0x7F),
        (g711.ulaw_encode, -4, 0x7F),
        (g711.ulaw_encode, -5, 0x7E),
        (g711.ulaw_encode, 32635, 0x80),
        (g711.ulaw_encode, 32767, 0x80),
        (g711.ulaw_encode, -32768, 0x00),
        (g711.alaw_encode, 0, 0xD5),
        (g711.alaw_encode, -1, 0x55),
        (g711.alaw_encode, 32767, 0xAA),
        (g711.alaw_encode, -32768, 0x2A),
    ],
)
def test_known_codes(encode: Callable[[Pcm], bytes], sample: int, code: int) -> None:
    assert encode(np.array([sample], np.int16)) == bytes([code])


@pytest.mark.parametrize(
    ("decode", "code", "sample"),
    [
        (g711.ulaw_decode, g711.ULAW_SILENCE, 0),
        (g711.ulaw_decode, 0x7F, 0),
        (g711.ulaw_decode, 0x80, 32124),
        (g711.ulaw_decode, 0x00, -32124),
        (g711.alaw_decode, g711.ALAW_SILENCE, 8),
        (g711.alaw_decode, 0x55, -8),
        (g711.alaw_decode, 0xAA, 32256),
        (g711.alaw_decode, 0x2A, -32256),
    ],
)
def test_known_samples(decode: Callable[[bytes], Pcm], code: int, sample: int) -> None:
    assert decode(bytes([code])).tolist() == [sample]


@laws
@given(data=st.binary(max_size=400))
def test_any_length_sample_by_sample(law: Law, data: bytes) -> None:
    pcm = law.decode(data)
    assert pcm.dtype == np.int16
    assert pcm.tolist() == [by_value(law.spec, code) for code in data]
    assert law.encode(pcm) == b"".join(law.encode(pcm[n : n + 1]) for n in range(len(pcm)))


@laws
def test_a_slice_with_gaps_is_encoded_as_it_reads(law: Law) -> None:
    every_third = ALL_SAMPLES[::3]
    assert law.encode(every_third) == law.encode(every_third.copy())


@laws
def test_a_decoded_frame_may_be_changed_without_changing_the_table(law: Law) -> None:
    frame = law.decode(ALL_CODES)
    frame[:] = 1
    assert law.decode(ALL_CODES).tolist() == [by_value(law.spec, code) for code in range(256)]


@pytest.mark.parametrize("encode", [g711.ulaw_encode, g711.alaw_encode])
@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32, np.float64, np.int8, ">i2"])
def test_only_int16_is_sound(encode: Callable[[NDArray[np.generic]], bytes], dtype: str) -> None:
    with pytest.raises(TypeError, match="int16"):
        encode(np.zeros(8, dtype))


def test_the_tables_cannot_be_changed() -> None:
    for table in (g711.ULAW_DECODE, g711.ULAW_ENCODE, g711.ALAW_DECODE, g711.ALAW_ENCODE):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_the_tables_are_indexed_as_the_names_say() -> None:
    assert (g711.ULAW_DECODE.shape, g711.ALAW_DECODE.shape) == ((256,), (256,))
    minus_five = np.array(-5, np.int16).view(np.uint16)
    assert g711.ULAW_ENCODE[minus_five] == 0x7E
    assert g711.ULAW_ENCODE.dtype == g711.ALAW_ENCODE.dtype == np.dtype(np.uint8)
