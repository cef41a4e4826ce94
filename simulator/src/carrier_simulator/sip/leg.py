"""One call over SIP, from the INVITE to the BYE: a user agent client on a UDP socket of its own.

RFC 3261: transactions of section 17.1, the dialog of 12, digest of 22. A lost datagram is sent again, an answer
that comes again is acknowledged again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qsl

from carrier_simulator.moments import Moment
from carrier_simulator.sip import digest, sdp
from carrier_simulator.sip.message import (
    VERSION,
    Headers,
    Message,
    SipMalformed,
    address_of,
    parse,
    parse_uri,
)

AGENT = "Twilio Gateway"
TIMEOUT = 408
"""What a request that nobody answers counts as (RFC 3261, 8.1.3.1)."""


@dataclass(frozen=True, slots=True)
class SipTimers:
    """Seconds; the RFC's."""

    t1: float = 0.5
    t2: float = 4.0
    transaction: float = 32.0
    """64 times T1: how long a request without any answer is sent again."""


@dataclass(frozen=True, slots=True)
class SipOutcome:
    """How an INVITE came out. `status` is 200 for a call that stands."""

    status: int
    reason: str = ""
    fault: str = ""
    """What was wrong with an answer that looked like a success."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The X- headers of the final response."""


@dataclass(frozen=True, slots=True)
class SipTarget:
    """Whom to call as whom."""

    uri: str
    address: tuple[str, int]
    """Where the datagrams go: the address that the URI resolved to."""
    caller: str
    username: str = ""
    password: str = field(default="", repr=False)


class SipLeg(asyncio.DatagramProtocol):
    """Made by `SipClient.invite`."""

    def __init__(self, target: SipTarget, rtp_port: int, timers: SipTimers) -> None:
        self.target = target
        self.call_id = secrets.token_hex(16) + "@127.0.0.1"
        self.sent: list[Message] = []
        self.received: list[Message] = []
        self.ringing = Moment("SIP ringing")
        self.answered = Moment("SIP answered")
        self.ended = Moment("SIP call ended")
        self.hung_up_by_them = False
        self._uri = target.uri.partition("?")[0]
        self.timers = timers
        self._rtp_port = rtp_port
        self._tag = secrets.token_hex(8)
        self._sequence = 0
        self._invite: Message | None = None
        self._ack: Message | None = None
        self._to = f"<{self._uri}>"
        self._remote = self._uri
        self._route: Headers = ()
        self._waiting: dict[tuple[str, str], asyncio.Queue[Message]] = {}
        self._host, self._port = "127.0.0.1", 0
        self._transport: asyncio.DatagramTransport | None = None

    # The socket ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not by isinstance: before Python 3.12 the loop's own transport is no DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._host, self._port = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            message = parse(data)
        except SipMalformed:
            return
        if message.get("Call-ID") != self.call_id:
            return
        self.received.append(message)
        if not message.status:
            self._serve(message, addr)
            return
        waiting = self._waiting.get((message.branch, message.method))
        if waiting is not None:
            waiting.put_nowait(message)
        elif message.method == "INVITE" and 200 <= message.status < 300 and self._ack is not None:
            # The far end did not get our ACK, and says so by repeating itself.
            self._send(self._ack)

    def close(self) -> None:
        self.ended.come()
        if self._transport is not None:
            self._transport.close()

    def _send(self, message: Message) -> None:
        assert self._transport is not None
        self.sent.append(message)
        self._transport.sendto(message.encode(), self.target.address)

    # The call -----------------------------------------------------------------------------------------------

    async def dial(self) -> SipOutcome:
        """Call, sign in when asked to, and return when the other side has decided. Cancelled: `cancel` tells it."""
        final = await self._invite_once(())
        if final.status in (401, 407) and self.target.username:
            name, header = ("WWW-Authenticate", "Authorization"), ("Proxy-Authenticate", "Proxy-Authorization")
            asked, answers = name if final.status == 401 else header
            challenge = final.get(asked)
            if challenge:
                try:
                    value = digest.answer(
                        challenge,
                        self.target.username,
                        self.target.password,
                        "INVITE",
                        self._uri,
                        secrets.token_hex(8),
                    )
                except digest.ChallengeUnusable as error:
                    return SipOutcome(final.status, final.reason, str(error))
                final = await self._invite_once(((answers, value),))
        return self._judge(final)

    async def _invite_once(self, credentials: Headers) -> Message:
        """One INVITE transaction; its final response, acknowledged."""
        self._sequence += 1
        invite = self._request("INVITE", self._sequence, (*credentials, *self._uri_headers()), self._offer())
        self._invite = invite
        final = await self._transaction(invite)
        if final.status >= 300 and final.get("Via"):
            # This ACK belongs to the INVITE's own transaction (17.1.1.3): its branch, its route, the answer's To.
            self._send(self._within(invite, "ACK", final.get("To")))
        return final

    def _judge(self, final: Message) -> SipOutcome:
        extra = {name: value for name, value in final.headers if name.lower().startswith("x-")}
        if not 200 <= final.status < 300:
            return SipOutcome(final.status, final.reason, headers=extra)
        self._to = final.get("To")
        self._route = tuple(("Route", route) for route in reversed(final.all("Record-Route")))
        contact = final.get("Contact")
        if contact:
            self._remote = address_of(contact)
        self._ack = self._request("ACK", self._sequence)
        self._send(self._ack)
        fault = sdp.fault_of(final.body, final.get("Content-Type"))
        if not final.to_tag:
            fault = "the answer has no To tag"
        elif not contact:
            fault = "the answer has no Contact"
        if not fault:
            self.answered.come()
        return SipOutcome(final.status, final.reason, fault, extra)

    async def cancel(self) -> None:
        """Give an INVITE up that has no final answer yet; a call that was answered meanwhile is hung up."""
        if self._invite is None or self.answered.has_come():
            await self.hang_up()
            return
        branch = (self._invite.branch, "INVITE")
        late: asyncio.Queue[Message] = self._waiting.setdefault(branch, asyncio.Queue())
        if any(message.branch == self._invite.branch and message.status for message in self.received):
            # Before any answer, a CANCEL must not be sent (9.1): the INVITE just times out over there.
            await self._transaction(self._within(self._invite, "CANCEL", self._invite.get("To")))
            try:
                async with asyncio.timeout(self.timers.t1 * 4):
                    while (final := await late.get()).status < 200:
                        pass
            except TimeoutError:
                pass
            else:
                if final.status >= 300:
                    self._send(self._within(self._invite, "ACK", final.get("To")))
                else:
                    self._judge(final)
                    await self.hang_up()
        self._waiting.pop(branch, None)
        self.close()

    async def hang_up(self) -> None:
        """BYE, unless they hung up first. Returns when they have confirmed it, or do not answer."""
        if self._ack is not None and not self.ended.has_come():
            self._sequence += 1
            await self._transaction(self._request("BYE", self._sequence))
        self.close()

    # Transactions -------------------------------------------------------------------------------------------

    async def _transaction(self, request: Message) -> Message:
        """Send until something comes back; the final response, or a 408 of our own making."""
        key = (request.branch, request.method)
        answers: asyncio.Queue[Message] = asyncio.Queue()
        self._waiting[key] = answers
        kept = False
        try:
            return await self._final(request, answers)
        except asyncio.CancelledError:
            kept = request.method == "INVITE"
            raise
        finally:
            if not kept:
                del self._waiting[key]

    async def _final(self, request: Message, answers: asyncio.Queue[Message]) -> Message:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timers.transaction
        pause, provisional = self.timers.t1, False
        self._send(request)
        while True:
            # Once it rings it may ring for long; who asked for the call gives up in its own time.
            patience = None if provisional else min(pause, deadline - loop.time())
            try:
                async with asyncio.timeout(patience):
                    response = await answers.get()
            except TimeoutError:
                if loop.time() >= deadline:
                    return Message(f"{VERSION} {TIMEOUT} Request Timeout", ())
                self._send(request)
                pause = pause * 2 if request.method == "INVITE" else min(pause * 2, self.timers.t2)
                continue
            if response.status >= 200:
                return response
            provisional = provisional or request.method == "INVITE"
            if response.status in (180, 183):
                self.ringing.come()

    def _serve(self, request: Message, addr: tuple[str, int]) -> None:
        """What the far end asks of us within the call."""
        if request.method == "ACK":
            return
        known = request.method in ("BYE", "OPTIONS", "INVITE", "UPDATE", "INFO", "NOTIFY")
        status = "200 OK" if known else "405 Method Not Allowed"
        repeated = ("Via", "From", "To", "Call-ID", "CSeq", "Record-Route")
        headers = [(name, value) for name in repeated for value in request.all(name)]
        headers.append(("Contact", f"<sip:{self._host}:{self._port}>"))
        body = self._offer() if request.method == "INVITE" else b""
        if body:
            headers.append(("Content-Type", "application/sdp"))
        assert self._transport is not None
        self._transport.sendto(Message(f"{VERSION} {status}", tuple(headers), body).encode(), addr)
        if request.method == "BYE":
            self.hung_up_by_them = True
            self.ended.come()

    # Messages -----------------------------------------------------------------------------------------------

    def _offer(self) -> bytes:
        return sdp.offer(self._host, self._rtp_port)

    def _uri_headers(self) -> Headers:
        """Headers that stand in the address after its question mark travel in the INVITE."""
        return tuple(parse_qsl(parse_uri(self.target.uri).headers, keep_blank_values=True))

    def _request(self, method: str, sequence: int, more: Headers = (), body: bytes = b"") -> Message:
        via = f"{VERSION}/UDP {self._host}:{self._port};branch=z9hG4bK{secrets.token_hex(8)};rport"
        headers = [
            ("Via", via),
            ("Max-Forwards", "70"),
            *self._route,
            ("From", f"<sip:{self.target.caller}@pstn.twilio.com>;tag={self._tag}"),
            ("To", self._to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{sequence} {method}"),
            ("Contact", f"<sip:{self.target.caller}@{self._host}:{self._port}>"),
            ("User-Agent", AGENT),
            *more,
        ]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        return Message(f"{method} {self._remote} {VERSION}", tuple(headers), body)

    def _within(self, invite: Message, method: str, to: str) -> Message:
        """An ACK of a refusal, or a CANCEL: the INVITE's own address, branch and number."""
        number = invite.get("CSeq").partition(" ")[0]
        headers = (
            ("Via", invite.get("Via")),
            ("Max-Forwards", "70"),
            ("From", invite.get("From")),
            ("To", to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{number} {method}"),
            ("User-Agent", AGENT),
        )
        return Message(f"{method} {self._uri} {VERSION}", headers)
