"""A SIP answering end that stands for LiveKit SIP, on somebody else's SIP stack (aiosipua).

It challenges as livekit-sip does (pkg/sip/inbound.go there): 407 with `Proxy-Authenticate`, MD5, no quality of
protection; wrong credentials get a 401 without a challenge; a number that no trunk has, a 404.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiosipua import (
    AuthChallenge,
    IncomingCall,
    SdpMessage,
    SipDigestAuth,
    SipRequest,
    SipUAS,
    UdpSipTransport,
    build_credentials,
    negotiate_sdp,
    parse_auth,
)
from aiosipua.dialog import DialogState

from demo.ports import PortLease

RTP_PORT = 40_000
"""Named in the SDP; nothing is sent there."""


@dataclass
class SipManners:
    """How the endpoint treats those who call it."""

    numbers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Number to user name and password; an empty user name asks for nothing."""
    status: int = 200
    """What a call with the right credentials gets."""
    rings_for: float = 0.0
    """Seconds between 180 and the answer; infinite: rings on."""
    algorithm: str = "MD5"
    qop: str = ""
    www: bool = False
    """Challenge as a registrar would: 401 with WWW-Authenticate."""
    refuses_audio: bool = False


class _Transport(UdpSipTransport):
    """With a protocol of its own: the package's checks for a class that the loop's transports have only from
    Python 3.12 on."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._udp_transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self), local_addr=self.local_addr
        )


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, transport: _Transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport._dispatch(data, addr)


class SipEndpoint:
    """Use as `async with SipEndpoint({"+1555…": ("user", "password")}) as endpoint`."""

    def __init__(self, numbers: dict[str, tuple[str, str]] | None = None, **manners: object) -> None:
        self.manners = SipManners(numbers or {}, **manners)  # type: ignore[arg-type]
        self.invites: list[SipRequest] = []
        self.calls: list[IncomingCall] = []
        """Those that were answered."""
        self.hung_up = asyncio.Event()
        """By the caller: BYE or CANCEL."""
        self.canceled = asyncio.Event()
        self.ringing = asyncio.Event()
        self._lease = PortLease()
        self._nonces: dict[str, AuthChallenge] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        transport = _Transport(local_addr=("127.0.0.1", self._lease.port))
        self._uas = SipUAS(transport, user_agent="LiveKit")
        self._uas.on_invite = self._invite
        self._uas.on_bye = lambda call, request: self.hung_up.set()
        self._uas.on_cancel = self._cancel

    @property
    def host(self) -> str:
        """What follows the @ of its addresses."""
        return f"127.0.0.1:{self._lease.port}"

    async def __aenter__(self) -> Self:
        await self._uas.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._uas.stop()
        self._lease.close()

    def hang_up(self) -> None:
        """From LiveKit's side: the room was deleted, say."""
        for call in self.calls:
            call.hangup()

    def _cancel(self, *_: object) -> None:
        self.canceled.set()
        self.hung_up.set()

    def _invite(self, call: IncomingCall) -> None:
        self.invites.append(call.invite)
        number = call.invite.uri.partition(":")[2].partition("@")[0]
        known = self.manners.numbers.get(number)
        if known is None:
            self._respond(call, 404, "Does not match any SIP Trunks")
        elif known[0] and not self._signed_in(call, *known):
            return
        elif self.manners.status != 200:
            call.ringing()
            call.reject(self.manners.status)
        else:
            task = asyncio.get_running_loop().create_task(self._answer(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: IncomingCall) -> None:
        call.ringing()
        self.ringing.set()
        if self.manners.rings_for == float("inf"):
            return
        await asyncio.sleep(self.manners.rings_for)
        if call.dialog.state is DialogState.TERMINATED:
            return
        assert call.sdp_offer is not None
        answer, _ = negotiate_sdp(call.sdp_offer, "127.0.0.1", RTP_PORT)
        if self.manners.refuses_audio:
            answer = _without_audio(answer)
        call.accept(answer)
        self.calls.append(call)

    def _signed_in(self, call: IncomingCall, username: str, password: str) -> bool:
        """Whether it may go on; else it has been answered."""
        invite, manners = call.invite, self.manners
        given = invite.get_header("authorization" if manners.www else "proxy-authorization")
        challenge = self._nonces.get(invite.call_id or "")
        if not given or challenge is None:
            self._challenge(call)
            return False
        credentials = parse_auth(given, credentials=True).params
        expected = build_credentials(
            SipDigestAuth(username, password),
            challenge,
            "INVITE",
            credentials.get("uri", ""),
            cnonce=credentials.get("cnonce"),
        )
        assert expected is not None
        right = credentials.get("username") == username and credentials.get("response") == expected.params["response"]
        if not right or credentials.get("uri") != invite.uri:
            self._respond(call, 401, "Unauthorized")
            return False
        return True

    def _challenge(self, call: IncomingCall) -> None:
        manners = self.manners
        params = {"realm": "LiveKit", "nonce": secrets.token_hex(8), "algorithm": manners.algorithm}
        if manners.qop:
            params["qop"] = manners.qop
        self._nonces[call.call_id] = AuthChallenge("Digest", params)
        text = ", ".join(f'{name}="{value}"' for name, value in params.items())
        header, status = ("WWW-Authenticate", 401) if manners.www else ("Proxy-Authenticate", 407)
        self._respond(call, status, "Unauthorized", {header: f"Digest {text}"})

    def _respond(self, call: IncomingCall, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        response = call.dialog.create_response(call.invite, status, reason)
        for name, value in (headers or {}).items():
            response.headers.set_single(name, value)
        self._uas.transport.send_reply(response)
        call.dialog.terminate()


def _without_audio(answer: SdpMessage) -> SdpMessage:
    answer.media[0].port = 0
    return answer
