"""Frees the SDK's native objects of a room immediately after the caller has left it.

The SDK frees a native object when its Python wrapper is freed. That may be late: the traceback of a cancelled task, or
any reference cycle, keeps the wrapper alive until the next full garbage collection, hundreds of calls later. Until then
a track or a publication keeps its closed connection, up to a megabyte. This module uses a private name of the SDK
(`_ffi_handle`); `tests/integration/test_leaks.py` fails when it changes.
"""

from __future__ import annotations

from collections.abc import Iterator

from livekit import rtc
from livekit.rtc._ffi_client import FfiHandle


def free_track(track: rtc.Track) -> None:
    """Free a local track that is not published, and will not be published again."""
    track._ffi_handle.dispose()


def free_room(room: rtc.Room) -> None:
    """Free a room after the leave, except its local tracks. The room must not be used afterwards."""
    for handle in _handles(room):
        handle.dispose()


def _handles(room: rtc.Room) -> Iterator[FfiHandle]:
    if room._ffi_handle is None:
        return  # It was never joined.
    for participant in room.remote_participants.values():
        for theirs in participant.track_publications.values():
            if theirs.track is not None:
                yield theirs.track._ffi_handle
            yield theirs._ffi_handle
        yield participant._ffi_handle
    for ours in room.local_participant.track_publications.values():
        yield ours._ffi_handle
    yield room.local_participant._ffi_handle
    yield room._ffi_handle
