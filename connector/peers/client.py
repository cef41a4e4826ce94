"""Asks other processes of the service: each answers at the address in its lease."""

from __future__ import annotations

import asyncio
import errno
import time
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import structlog

from connector.deadlines import remaining
from connector.errors import (
    Aborted,
    ConnectorError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from connector.metrics import Metrics
from connector.model.call import CallRecord
from connector.peers.commands import (
    Answer,
    CallCommand,
    Command,
    Done,
    EndCall,
    Hello,
    NotCarriedOut,
    Refused,
    Request,
    SwitchRoom,
    TransferCall,
    UnreadableMessage,
    answer_of,
    encoded,
)
from connector.peers.failures import AnswerLost, NoPeerAddress, NotHeld, PeerError, PeerGone, PeerUnreachable
from connector.peers.lease_address import reachable_from_here
from connector.peers.request_tokens import PeerSignatures, RequestToken

log = structlog.get_logger()

PATH = "/peer"
PROOF = "Connector-Proof"
CONNECT_TIMEOUT = 1.0
HELLO_TIMEOUT = 2.0
ANSWER_MARGIN = 0.2
CLOCK_SKEW = 10.0
"""Seconds by which the clocks of two machines may differ. A process that was frozen may carry out a request from its
socket up to this long after the request's deadline."""
MAX_ANSWER = 1024 * 1024
_KINDS = {
    kind.twirp_code: kind
    for kind in (
        NotFound,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Unimplemented,
        Internal,
    )
}
"""The owner's error has the same code here, on every transport."""
_PATIENCE = 15.0
_PATIENCE_MOVE = 45.0
_PATIENCE_OUTCOME = 60.0


class PeerAddresses(Protocol):
    """See `connector.storage.base.Store`, of a layer beside this one."""

    async def address_of(self, owner: str) -> str: ...


def patience(command: CallCommand) -> float:
    """Seconds to wait for the owner if the client has no deadline: more than the longest time that the owner needs."""
    match command:
        case TransferCall(order=order, wait=True):
            return order.timeout + _PATIENCE_OUTCOME
        case TransferCall() | SwitchRoom() | EndCall():
            return _PATIENCE_MOVE
        case _:
            return _PATIENCE


@dataclass(frozen=True, slots=True)
class _Reply:
    """`answer`: None if the sender has not proven that it has our secret."""

    answer: Answer | None


class PeerClient:
    """Call `start` before use and `close` after it.

    A command is sent over a new connection and never sent twice: if the answer is lost, the command may have been
    carried out, and a second SendDtmf would press the digits again.
    """

    def __init__(self, owner: str, signatures: PeerSignatures, addresses: PeerAddresses, metrics: Metrics) -> None:
        """`owner`: the name of this process."""
        self._owner = owner
        self._signatures = signatures
        self._addresses = addresses
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            # A kept connection could belong to an earlier process. Then we could not know whether a request was lost.
            connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, owner: str, command: CallCommand) -> CallRecord:
        """Has another process carry out a command on its call; returns the call's record after it. Waits until the
        deadline of the current request (`connector.deadlines`), or `patience`.

        Raises the owner's own error, DeadlineExceeded if it does not answer in time, NotCarried if it certainly did
        nothing, AnswerLost if that is not known, StoreError if its address cannot be read from the store."""
        started = time.monotonic()
        result = "failed"
        try:
            record = await self._ask(owner, command)
            result = "done"
            return record
        except PeerError as error:
            result = error.result
            raise
        except DeadlineExceeded:
            result = "deadline"
            raise
        except ConnectorError:
            result = "refused"
            raise
        except asyncio.CancelledError:
            if remaining() == 0:
                # The client still gets the error that names the process.
                result = "deadline"
                raise _too_slow(owner) from None
            result = "canceled"
            raise
        finally:
            self._metrics.peer_requests.labels(command.name, result).inc()
            log.info(
                "request carried to the process that holds the call",
                call_id=command.call_id,
                owner=owner,
                request=command.name,
                result=result,
                milliseconds=round((time.monotonic() - started) * 1000),
            )

    async def is_reachable(self, owner: str) -> bool:
        """Returns False only if the process is certainly dead: its address refuses connections, or belongs to another
        process of the service. A process that does not answer, or cannot be asked from here, may live: its lease
        decides."""
        if owner == self._owner:
            return True
        try:
            await self._send(owner, Hello(), HELLO_TIMEOUT)
        except PeerGone:
            # Called every second until the lease is gone: the callers log the consequences.
            log.debug("a process does not exist any more", owner=owner)
            return False
        except ConnectorError as error:
            log.debug("could not check whether a process is alive", owner=owner, error=error.message)
        return True

    async def takes_calls(self, owner: str) -> bool:
        """Returns False if the process is dead, or drains and so accepts no calls of other processes. A process that
        does not answer, or cannot be asked from here, may accept them."""
        try:
            answer = await self._send(owner, Hello(), HELLO_TIMEOUT)
        except PeerGone:
            return False
        except ConnectorError as error:
            log.debug("could not check whether a process accepts calls", owner=owner, error=error.message)
            return True
        return not isinstance(answer, Refused)

    async def _ask(self, owner: str, command: CallCommand) -> CallRecord:
        left = remaining()
        # A little less, so that the client gets an answer before it gives up.
        seconds = patience(command) if left is None else left - min(ANSWER_MARGIN, left / 10)
        answer = await self._send(owner, command, seconds)
        match answer:
            case Done(record=CallRecord() as record):
                return record
            case Refused(code=code, message=message, field=field):
                raise _error_of(code, message, field)
            case NotCarriedOut(why="not_held"):
                raise NotHeld(f"the process {owner} does not hold the call any more")
            case NotCarriedOut(why="expired"):
                raise PeerUnreachable(f"the process {owner} got the request too late, or its clock differs from ours")
            case NotCarriedOut(why="repeated"):
                raise AnswerLost(f"the process {owner} got the request twice: whether it succeeded is not known")
        raise Internal(f"the process {owner} gave an answer that does not belong to the request")

    async def _send(self, owner: str, command: Command, seconds: float) -> Answer:
        """Raises PeerError and DeadlineExceeded; and StoreError."""
        url = await self._url_of(owner)
        body = encoded(Request(command, seconds))
        ends = time.monotonic() + seconds
        for token in self._signatures.tokens(owner, body, time.time() + seconds + CLOCK_SKEW):
            reply = await self._post(owner, url, body, token, ends)
            if reply.answer is not None:
                if isinstance(reply.answer, NotCarriedOut) and reply.answer.why == "other_process":
                    raise PeerGone(f"the process {owner}, which held the call, is gone: another one has its address")
                return reply.answer
            # A process that does not have this secret has carried out nothing. It may still have the former secret.
        raise PeerUnreachable(
            f"{url} is not the process {owner}, or that has another CONNECTOR_SECRET than this process"
        )

    async def _url_of(self, owner: str) -> str:
        address = await self._addresses.address_of(owner)
        if not address:
            raise NoPeerAddress(f"the process {owner}, which holds the call, has no address in the store")
        url = reachable_from_here(address)
        if url is None:
            raise NoPeerAddress(
                f"the process {owner}, which holds the call, is on another machine and answers only there: "
                "see CONNECTOR_PEER_HOST"
            )
        return url

    async def _post(self, owner: str, url: str, body: bytes, token: RequestToken, ends: float) -> _Reply:
        if self._session is None:
            raise RuntimeError("the client of the other processes has not been started")
        # A total of 0 would mean no limit.
        limit = aiohttp.ClientTimeout(total=max(0.001, ends - time.monotonic()), sock_connect=CONNECT_TIMEOUT)
        headers = {"Authorization": f"Bearer {token.text}", "Content-Type": "application/json"}
        try:
            async with self._session.post(
                url + PATH, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                answer = await _body_of(response)
                proof = response.headers.get(PROOF, "")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _unconnected(owner, url, error) from error
        except TimeoutError as error:
            raise _too_slow(owner) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _lost(owner) from error
        if not token.is_proven(answer, proof):
            return _Reply(None)
        try:
            return _Reply(answer_of(answer))
        except UnreadableMessage as error:
            log.warning("the answer of another process cannot be read", owner=owner, fields=str(error))
            raise _lost(owner) from error


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER:
            raise ValueError("the answer is too long")
    return bytes(body)


def _unconnected(owner: str, url: str, error: Exception) -> PeerError:
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.ECONNREFUSED:
        return PeerGone(f"the process {owner}, which held the call, is gone")
    return PeerUnreachable(f"the process {owner}, which holds the call, cannot be reached at {url}")


def _too_slow(owner: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the process {owner}, which holds the call, did not answer in time: whether the request succeeds is not known"
    )


def _lost(owner: str) -> AnswerLost:
    return AnswerLost(
        f"the process {owner}, which held the call, broke off its answer: whether the request succeeded is not known"
    )


def _error_of(code: str, message: str, field: str) -> ConnectorError:
    if code == InvalidArgument.twirp_code:
        return InvalidArgument(field, message)
    return _KINDS.get(code, Internal)(message)
