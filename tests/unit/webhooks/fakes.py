"""A store's part for webhooks in memory, and servers that answer as they are told."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from connector.errors import Unavailable
from connector.model.webhook import Attempt, Delivery, LifecycleEvent, SigningKey, WebhookEndpoint
from connector.webhooks.post import Outcome, Poster
from connector.webhooks.signing import _new_key

P = ParamSpec("P")
R = TypeVar("R")
KEY = _new_key(1.0)
"""Made once: making one takes a while, and a thread, which a virtual clock does not wait for."""
EVERY_EVENT = tuple(LifecycleEvent)


def endpoint(name: str, events: tuple[LifecycleEvent, ...] = EVERY_EVENT) -> WebhookEndpoint:
    return WebhookEndpoint(name, f"https://{name}.example.com/hook?secret=s3cret", events, 1.0, 1.0)


def delivery(name: str, to: str, call_id: str = "call_1", at: float = 0.0) -> Delivery:
    return Delivery(name, to, call_id, LifecycleEvent.STARTED, '{"webhookType":"call-started"}', at, at)


@dataclass
class FakeEndpoints:
    there: dict[str, WebhookEndpoint] = field(default_factory=dict)
    broken: bool = False

    async def get(self, document_id: str) -> WebhookEndpoint | None:
        return self.there.get(document_id)

    async def list(self) -> list[WebhookEndpoint]:
        if self.broken:
            raise Unavailable("the store is out")
        return list(self.there.values())


class FakeKeys:
    """One key in use at most, as every store holds it."""

    def __init__(self, *keys: SigningKey) -> None:
        self.there = {key.id: key for key in keys}

    async def insert(self, document: SigningKey) -> None:
        await asyncio.sleep(0)
        if not document.retired_at and any(not key.retired_at for key in self.there.values()):
            raise Unavailable("in use is taken")
        self.there[document.id] = document

    async def replace(self, document: SigningKey, expected: SigningKey | None = None) -> bool:
        await asyncio.sleep(0)
        if document.id not in self.there or expected not in (None, self.there[document.id]):
            return False
        self.there[document.id] = document
        return True

    async def delete(self, document_id: str) -> bool:
        await asyncio.sleep(0)
        return self.there.pop(document_id, None) is not None

    async def list(self) -> list[SigningKey]:
        await asyncio.sleep(0)
        return sorted(self.there.values(), key=lambda key: -key.created_at)


@dataclass
class FakeQueue:
    waiting: list[Delivery] = field(default_factory=list)
    """In the order in which they were put."""
    leases: dict[str, float] = field(default_factory=dict)
    log: list[Attempt] = field(default_factory=list)
    broken: bool = False

    async def put(self, deliveries: Sequence[Delivery]) -> None:
        if self.broken:
            raise Unavailable("the store is out")
        known = {one.id for one in self.waiting}
        self.waiting += [one for one in deliveries if one.id not in known]

    def _firsts(self, busy: Collection[str]) -> list[tuple[float, int, Delivery]]:
        lines: dict[tuple[str, str], tuple[float, int, Delivery]] = {}
        for place, one in enumerate(self.waiting):
            takeable_at = max(one.due_at, self.leases.get(one.id, 0.0))
            lines.setdefault((one.endpoint_id, one.call_id), (takeable_at, place, one))
        firsts: list[tuple[float, int, Delivery]] = []
        for first in lines.values():
            if first[2].endpoint_id not in busy:
                bisect.insort(firsts, first, key=lambda entry: entry[:2])
        return firsts

    async def take(self, now: float, leased_until: float, limit: int, busy: Collection[str] = ()) -> list[Delivery]:
        if self.broken:
            raise Unavailable("the store is out")
        taken = [one for at, _, one in self._firsts(busy) if at <= now][:limit]
        self.leases |= {one.id: leased_until for one in taken}
        return taken

    async def settle(self, attempt: Attempt, retry_at: float | None) -> None:
        self.log.append(attempt)
        self.leases.pop(attempt.delivery_id, None)
        place = next((place for place, one in enumerate(self.waiting) if one.id == attempt.delivery_id), None)
        if place is None:
            return
        if retry_at is None:
            del self.waiting[place]
        else:
            self.waiting[place] = replace(self.waiting[place], due_at=retry_at, attempts=attempt.number)

    async def next_due(self, busy: Collection[str] = ()) -> float | None:
        return min((at for at, _, _ in self._firsts(busy)), default=None)

    async def pending(self) -> int:
        return len(self.waiting)

    async def drop_endpoint(self, endpoint_id: str) -> int:
        before = len(self.waiting)
        self.waiting = [one for one in self.waiting if one.endpoint_id != endpoint_id]
        return before - len(self.waiting)

    async def attempts(self, limit: int = 50, endpoint_id: str = "", call_id: str = "") -> list[Attempt]:
        newest = self.log[::-1]
        newest.sort(key=lambda attempt: -attempt.at)
        return [
            attempt
            for attempt in newest
            if endpoint_id in ("", attempt.endpoint_id) and call_id in ("", attempt.call_id)
        ][:limit]

    async def forget_before(self, at: float) -> int:
        before = len(self.log)
        self.log = [attempt for attempt in self.log if attempt.at >= at]
        return before - len(self.log)


@dataclass(frozen=True)
class Post:
    host: str
    body: bytes
    headers: Mapping[str, str]
    at: float

    @property
    def delivery_id(self) -> str:
        return self.headers["videosdk-delivery-id"]


class FakePoster(Poster):
    """Every endpoint answers at once with 200, unless `answers` has something else for it: an outcome, or seconds
    of silence before a time-out."""

    def __init__(self) -> None:
        super().__init__(allow_private=False)
        self.answers: dict[str, Outcome | float] = {}
        self.posts: list[Post] = []
        self.open_posts = 0
        self.most_open: dict[str, int] = {}
        self._open: dict[str, int] = {}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        host = url.split("/")[2].partition(".")[0]
        self.posts.append(Post(host, body, headers, asyncio.get_running_loop().time()))
        self._open[host] = self._open.get(host, 0) + 1
        self.most_open[host] = max(self.most_open.get(host, 0), self._open[host])
        try:
            answer = self.answers.get(host, Outcome(200))
            if isinstance(answer, float):
                await asyncio.sleep(answer)
                return Outcome(0, f"no answer within {answer:g} s")
            return answer
        finally:
            self._open[host] -= 1

    def at(self, host: str) -> list[Post]:
        return [post for post in self.posts if post.host == host]


async def at_once(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """In the place of a thread, which a virtual clock does not wait for."""
    return function(*args, **kwargs)
