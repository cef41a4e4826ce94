"""Composes the webhook parts of one process, and starts and stops them in order."""

from __future__ import annotations

from typing import Protocol

import structlog

from connector.metrics import Metrics
from connector.webhooks.lifecycle import LifecycleWebhooks
from connector.webhooks.payload import Describe
from connector.webhooks.post import Poster
from connector.webhooks.protocols import Endpoints, Keys, Queue
from connector.webhooks.sender import Sender
from connector.webhooks.signing import KeyRing

log = structlog.get_logger()


class WebhookStore(Protocol):
    @property
    def endpoints(self) -> Endpoints: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def deliveries(self) -> Queue: ...


class Webhooks:
    """`start` once the store is open, `stop` when no call is left and before the store closes."""

    def __init__(self, store: WebhookStore, metrics: Metrics, describe: Describe, *, allow_private: bool) -> None:
        self.keys = KeyRing(store.keys)
        self._queue = store.deliveries
        self._sender = Sender(
            store.deliveries, store.endpoints, self.keys, Poster(allow_private=allow_private), metrics
        )
        self.lifecycle = LifecycleWebhooks(store.endpoints, store.deliveries, describe, self._sender.wake)

    async def start(self) -> None:
        await self.keys.open()
        await self._sender.start()

    async def stop(self) -> None:
        """Undelivered events stay in the store for the next process."""
        await self.lifecycle.close()
        await self._sender.stop()

    async def forget_before(self, at: float) -> None:
        """Delete delivery log lines older than `at` (Unix seconds), and keys that no longer sign."""
        lines = await self._queue.forget_before(at)
        keys = await self.keys.forget_retired()
        if lines or keys:
            log.info("old lines of the delivery log deleted", lines=lines, keys=keys)
