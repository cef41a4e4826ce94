"""Phones that are to be hung up, in memory; see `connector.storage.base.HangUpQueue`."""

from __future__ import annotations

from dataclasses import replace

from connector.model.call import HangUp


class MemoryHangUps:
    def __init__(self) -> None:
        self.kept: dict[str, tuple[HangUp, float]] = {}
        """By id, and from when each may be taken."""
        self.withdrawn: dict[str, float] = {}
        """By id, until when."""

    async def put(self, hang_up: HangUp, leased_until: float) -> bool:
        if hang_up.id in self.kept or hang_up.id in self.withdrawn:
            return False
        self.kept[hang_up.id] = (hang_up, leased_until)
        return True

    async def withdraw(self, hang_up_id: str, now: float, until: float) -> None:
        self.withdrawn = {each: end for each, end in self.withdrawn.items() if end >= now} | {hang_up_id: until}
        self.kept.pop(hang_up_id, None)

    async def allow(self, hang_up_id: str) -> None:
        self.withdrawn.pop(hang_up_id, None)

    async def take(self, now: float, leased_until: float, limit: int) -> list[HangUp]:
        due = sorted((at, hang_up.id) for hang_up, at in self.kept.values() if at <= now)[:limit]
        for _, hang_up_id in due:
            self.kept[hang_up_id] = (self.kept[hang_up_id][0], leased_until)
        return [self.kept[hang_up_id][0] for _, hang_up_id in due]

    async def retry(self, hang_up_id: str, at: float, attempts: int) -> None:
        if hang_up_id in self.kept:
            hang_up = self.kept[hang_up_id][0]
            self.kept[hang_up_id] = (replace(hang_up, attempts=max(hang_up.attempts, attempts)), at)

    async def settle(self, hang_up_id: str) -> None:
        self.kept.pop(hang_up_id, None)

    async def next_due(self) -> float | None:
        return min((at for _, at in self.kept.values()), default=None)

    async def pending(self) -> int:
        return len(self.kept)
