"""The SDK's native objects of a room that was left, freed at once.

The SDK frees a native object with the Python object that stands for it. That may be late: the traceback of a cancelled
task, or any cycle, keeps Python objects until the next full collection, hundreds of calls away, and a track or a
publication keeps its closed connection, with up to a megabyte. It relies on names of the SDK that are not public
(`_ffi_handle`); `tests/integration/test_leaks.py` fails when they change.
"""

from __future__ import annotations

from collections.abc import Iterator

from livekit import rtc
from livekit.rtc._ffi_client import FfiHandle


def free_track(track: rtc.Track) -> None:
    """A local track that is published nowhere, and will not be again."""
    track._ffi_handle.dispose()


def free_room(room: rtc.Room) -> None:
    """A room that was left, all but its local tracks. It must not be used any more."""
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
