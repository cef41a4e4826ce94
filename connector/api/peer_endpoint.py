"""The endpoint at which this process answers the other processes of the service, on an address of its own: the public
ports may be shared by several processes, so they cannot address one of them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from connector.deadlines import deadline
from connector.errors import ConnectorError, InvalidArgument, TokenInvalid, Unavailable, Unimplemented
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model.call import CallRecord
from connector.peers.client import PATH, PROOF
from connector.peers.commands import (
    Answer,
    CallCommand,
    Done,
    Hello,
    NotCarriedOut,
    Refused,
    Request,
    UnreadableMessage,
    encoded,
    request_of,
)
from connector.peers.failures import NotHeld
from connector.peers.lease_address import advertised
from connector.peers.request_tokens import CheckedToken, PeerSignatures
from connector.urls import bracketed

log = structlog.get_logger()

PORTS = 64
"""Number of ports from CONNECTOR_PEER_PORT on, if several processes have the same settings: workers, and replaced
workers that still drain."""
MAX_BODY = 4 * 1024 * 1024
"""A request of a client has at most 256 KiB; JSON needs up to six bytes for one."""


class PeerEndpoint:
    """Answers only requests with a token for this process (`connector.peers.request_tokens`), each once. A command is
    carried out here or not at all: it is never passed on again."""

    def __init__(
        self,
        owner: str,
        signatures: PeerSignatures,
        carry_out: Callable[[CallCommand], Awaitable[CallRecord]],
        metrics: Metrics,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        """`owner`: the name of this process. `carry_out`: see `connector.call.registry.forwarding.Commands`.
        `is_draining`: this process accepts no more calls, also not from other processes."""
        self._owner = owner
        self._signatures = signatures
        self._carry_out = carry_out
        self._metrics = metrics
        self._is_draining = is_draining
        self._runner: web.AppRunner | None = None
        self._seen: dict[str, float] = {}
        """Tokens of requests that were received, with their expiry."""
        self.address = ""
        """The address for the lease; empty while this process cannot be asked."""

    async def start(self, host: str, port: int, url: str = "", *, several: bool = False) -> None:
        """`port`: 0 for any free port; with `several`, the first of `PORTS`, of which a free one is taken. `url`: the
        address for the other processes, if it is not that of the socket; its port is moved likewise. Raises OSError."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_post(PATH, self._handle)
        # If a client disconnects, its request is cancelled, as on the public ports.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await runner.setup()
        self._runner = runner
        moved = await self._listen(runner, host, port, PORTS if several and port else 1)
        if not url:
            url = f"http://{bracketed(host)}:{runner.addresses[0][1]}"
        elif moved:
            head, _, of_url = url.rpartition(":")
            url = f"{head}:{int(of_url) + moved}"
        self.address = advertised(url)

    async def _listen(self, runner: web.AppRunner, host: str, port: int, ports: int) -> int:
        """Returns the distance from `port`."""
        for moved in range(ports):
            try:
                await web.TCPSite(runner, host, port + moved).start()
            except OSError as error:
                if error.errno == errno.EADDRINUSE and moved + 1 < ports:
                    continue
                await self.stop()
                why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
                raise OSError(
                    f"cannot listen on {host} port {port} for the other processes: {why.lower()}; see "
                    "CONNECTOR_PEER_HOST and CONNECTOR_PEER_PORT"
                ) from error
            return moved
        raise AssertionError("the last port raises")

    async def stop(self) -> None:
        self.address = ""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            token = self._signatures.check(_bearer(request), self._owner)
            body = await request.read()
            if not token.covers(body):
                raise TokenInvalid("the token is for another body")
        except TokenInvalid as error:
            self._metrics.refused.labels("peer", type(error).__name__).inc()
            log.warning("unauthenticated request at the endpoint for the other processes", error=error.message)
            return web.Response(status=403, text="only processes with the same secret are answered\n")
        answer = encoded(await self._answer(token, body))
        return web.Response(body=answer, content_type="application/json", headers={PROOF: token.proof(answer)})

    async def _answer(self, token: CheckedToken, body: bytes) -> Answer:
        now = time.time()
        if not token.is_for_us:
            return NotCarriedOut("other_process")
        if now >= token.expires_at:
            return NotCarriedOut("expired")
        self._seen = {each: expires_at for each, expires_at in self._seen.items() if expires_at > now}
        if token.text in self._seen:
            return NotCarriedOut("repeated")
        self._seen[token.text] = token.expires_at
        try:
            request = request_of(body)
        except UnreadableMessage as error:
            log.warning("the request of another process cannot be read: it may have another version", fields=str(error))
            return _refused(Unimplemented(f"the process {self._owner} is of a version that cannot do that"))
        return await self._carried_out(request)

    async def _carried_out(self, request: Request) -> Answer:
        command = request.command
        if isinstance(command, Hello):
            if self._is_draining():
                return _refused(Unavailable(f"the process {self._owner} drains"))
            return Done(None)
        with bind_call(command.call_id):
            log.info("request received from another process", request=command.name)
            try:
                async with deadline(request.seconds):
                    return Done(await self._carry_out(command))
            except NotHeld:
                return NotCarriedOut("not_held")
            except ConnectorError as error:
                return _refused(error)
            except Exception:
                log.exception("the request of another process failed", request=command.name)
                return Refused("internal", "internal error")


def _refused(error: ConnectorError) -> Refused:
    if isinstance(error, InvalidArgument):
        return Refused(error.twirp_code, error.message.removeprefix(f"{error.field}: "), error.field)
    return Refused(error.twirp_code, error.message)


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""
