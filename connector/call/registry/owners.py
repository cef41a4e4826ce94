"""Whether the owner of a call is gone, judged by its lease. Pure: facts in, time passed in.

A lease holds a time by its owner's clock, which may differ from ours. So only its changes count: an owner is gone when
its lease has stayed the same for LEASE_LAPSE seconds of our own clock, while we looked regularly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from connector.model.call import WaitingCall

LEASE_LAPSE = 3.0
"""Seconds without a renewal after which other processes take over the calls of a process."""
IDLE_LAPSE = 20.0
"""As LEASE_LAPSE, for a process without calls."""
LATE = 1.5
"""Seconds without a renewal after which a process is asked whether it lives."""
LOOK_EVERY = 1.0
MAX_GAP = 2.0
"""Longest time in seconds between two observations that count together. After a longer gap (this process or the store
was stopped) the observation starts again: others could not renew their leases either."""


class OwnerWatch:
    """The leases of all processes, as seen by this one."""

    def __init__(self) -> None:
        self._looked = float("-inf")
        self._leases: dict[str, tuple[float, float]] = {}
        """By owner: the last renewal (Unix time by the owner's clock), and since when we have seen it."""
        self._dead: set[str] = set()
        """Owners whose address refuses connections, or belongs to another process."""
        self._entries: dict[tuple[str, int], float] = {}
        """By call and stream of each entry of an active call: since when we have seen it. The lease of a process
        without calls is renewed seldom, so an entry must be seen for LEASE_LAPSE, too."""

    def observe(self, now: float, leases: Mapping[str, float], entries: Iterable[WaitingCall]) -> None:
        """The leases and entries in the store at `now`, by the event loop's clock."""
        if now > self._looked + MAX_GAP:
            self.start_again()
        self._looked = now
        owners = {entry.owner for entry in entries} | leases.keys()
        before, self._leases = self._leases, {}
        for owner in owners:
            renewed_at = leases.get(owner, 0.0)
            seen = before.get(owner)
            is_same = seen is not None and seen[0] == renewed_at
            self._leases[owner] = seen if seen is not None and is_same else (renewed_at, now)
            if not is_same:
                self._dead.discard(owner)
        known = self._entries
        self._entries = {(entry.id, entry.stream): known.get((entry.id, entry.stream), now) for entry in entries}

    def start_again(self) -> None:
        """The store failed, or there was no observation for too long."""
        self._leases.clear()
        self._entries.clear()
        self._dead.clear()

    def is_gone(self, now: float, owner: str, entry: WaitingCall) -> bool:
        if owner in self._dead:
            return True
        seen, since = self._leases.get(owner), self._entries.get((entry.id, entry.stream))
        if seen is None or since is None or now > self._looked + MAX_GAP:
            return False
        return now - max(seen[1], since) >= LEASE_LAPSE

    def is_late(self, now: float, owner: str) -> bool:
        seen = self._leases.get(owner)
        return seen is not None and owner not in self._dead and now - seen[1] >= LATE

    def is_dead(self, owner: str) -> None:
        """Until it renews its lease, this owner counts as gone."""
        self._dead.add(owner)

    def others(self, now: float, me: str) -> list[str]:
        """The other processes that may live; those without calls renew their leases seldom."""
        leases = self._leases.items()
        return [owner for owner, seen in leases if owner != me and seen[0] and now - seen[1] < IDLE_LAPSE]

    def last_renewal(self, owner: str) -> float:
        """Unix time by the owner's clock; 0.0: unknown."""
        return self._leases.get(owner, (0.0, 0.0))[0]
