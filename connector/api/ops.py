"""Endpoints for load balancers and Prometheus: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from connector.call.ports import Admin
from connector.call.registry.manager import CallManager
from connector.errors import ConnectorError
from connector.metrics import Metrics
from connector.worker import WorkerLink

READY_CACHE = 2.0
"""Seconds for which the result of LiveKit's check is cached, so that probes do not load LiveKit."""


class OpsRoutes:
    def __init__(self, calls: CallManager, admin: Admin, metrics: Metrics, link: WorkerLink | None = None) -> None:
        """`link`: to the supervisor, if this process is a worker."""
        self._link = link
        self._calls = calls
        self._admin = admin
        self._metrics = metrics
        self._checked_at = -READY_CACHE
        self._livekit_problem = ""
        self._checking = asyncio.Lock()
        """Only one probe at a time asks LiveKit; the others wait for its result, because a timeout may be slow."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/healthz", self.healthz)
        router.add_get("/readyz", self.readyz)
        router.add_get("/metrics", self.metrics)

    async def healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Returns 200 if a new call can be accepted now, else 503 with the reasons."""
        problems = []
        if self._calls.draining:
            problems.append("draining")
        if self._calls.full:
            problems.append("full")
        if problem := await self._livekit():
            problems.append(problem)
        workers = {}
        if self._link is not None and self._link.all_workers:
            workers = {"workers": {"ready": self._link.ready_workers, "all": self._link.all_workers}}
        if problems:
            return web.json_response({"status": "not ready", "problems": problems, **workers}, status=503)
        return web.json_response({"status": "ready", **workers})

    async def _livekit(self) -> str:
        async with self._checking:
            if time.monotonic() - self._checked_at >= READY_CACHE:
                try:
                    await self._admin.check()
                    self._livekit_problem = ""
                except ConnectorError as error:
                    self._livekit_problem = error.message
                self._checked_at = time.monotonic()
        return self._livekit_problem

    async def metrics(self, _: web.Request) -> web.Response:
        self._calls.count_states()
        return web.Response(body=self._metrics.render(), headers={"Content-Type": self._metrics.content_type})
