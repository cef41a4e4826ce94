"""The simulator's G.711 and the connector's were written apart, and agree on every input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from carrier_simulator import g711 as simulators
from connector.audio import g711 as connectors

Encode = Callable[[NDArray[np.int16]], bytes]
Decode = Callable[[bytes], NDArray[np.int16]]
EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
EVERY_CODE = bytes(range(256))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(simulators.ulaw_encode, connectors.ulaw_encode), (simulators.alaw_encode, connectors.alaw_encode)],
    ids=["mu-law", "A-law"],
)
def test_every_sample_has_one_code(ours: Encode, theirs: Encode) -> None:
    assert ours(EVERY_SAMPLE) == theirs(EVERY_SAMPLE)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(simulators.ulaw_decode, connectors.ulaw_decode), (simulators.alaw_decode, connectors.alaw_decode)],
    ids=["mu-law", "A-law"],
)
def test_every_code_is_one_sample(ours: Decode, theirs: Decode) -> None:
    np.testing.assert_array_equal(ours(EVERY_CODE), theirs(EVERY_CODE))


def test_the_ends_of_the_recommendations_tables() -> None:
    assert simulators.ulaw_decode(b"\x80\xff\x7f\x00").tolist() == [8031 * 4, 0, 0, -8031 * 4]
    assert simulators.alaw_decode(b"\xaa\xd5\x55\x2a").tolist() == [4032 * 8, 8, -8, -4032 * 8]


def test_only_int16_is_encoded() -> None:
    with pytest.raises(TypeError, match="float64"):
        simulators.ulaw_encode(np.zeros(1))  # type: ignore[arg-type]
