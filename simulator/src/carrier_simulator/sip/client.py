"""Calls SIP addresses: finds out where an address is, and opens a leg to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import MutableMapping

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.sip.leg import SipLeg, SipTarget, SipTimers
from carrier_simulator.sip.message import SipMalformed, parse_uri

DEFAULT_PORT = 5060
_HURRIED = SipTimers(t1=0.1, t2=0.1, transaction=0.2)


class _Discard(asyncio.DatagramProtocol):
    """Takes the far end's audio; nobody listens to it."""


class SipClient:
    """`hosts` maps a host name to the address that it really is at, as a private DNS would."""

    def __init__(self, timers: SipTimers | None = None) -> None:
        self.timers = timers or SipTimers()
        self.hosts: MutableMapping[str, tuple[str, int]] = {}
        self.legs: list[SipLeg] = []
        self._audio: dict[SipLeg, asyncio.DatagramTransport] = {}

    async def open(self, uri: str, caller: str, username: str, password: str) -> SipLeg:
        """A leg to this address, which has not been dialled yet. Raises Refused for one that cannot be called."""
        target = SipTarget(uri, await self._resolve(uri), caller, username, password)
        loop = asyncio.get_running_loop()
        audio, _ = await loop.create_datagram_endpoint(_Discard, local_addr=("127.0.0.1", 0))
        port = audio.get_extra_info("sockname")[1]
        _, leg = await loop.create_datagram_endpoint(
            lambda: SipLeg(target, port, self.timers), local_addr=("127.0.0.1", 0)
        )
        self.legs.append(leg)
        self._audio[leg] = audio
        return leg

    def hurry(self) -> None:
        """The simulation ends: say goodbye, but wait for nobody's answer."""
        self.timers = _HURRIED
        for leg in self.legs:
            leg.timers = _HURRIED

    async def close(self) -> None:
        """Let every socket go."""
        for leg, audio in self._audio.items():
            leg.close()
            audio.close()
        self._audio.clear()
        # Closed transports let go of their sockets in the loop's next turn.
        await asyncio.sleep(0)

    async def _resolve(self, uri: str) -> tuple[str, int]:
        try:
            parsed = parse_uri(uri)
        except SipMalformed as error:
            raise Refused(Fault.SIP_ADDRESS, str(error)) from error
        if parsed.secure or parsed.parameters.get("transport", "udp").lower() != "udp":
            raise Refused(Fault.SIP_UNREACHABLE, "only SIP over UDP is simulated")
        if parsed.host in self.hosts:
            return self.hosts[parsed.host]
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            found = await loop.getaddrinfo(
                parsed.host, parsed.port or DEFAULT_PORT, family=socket.AF_INET, type=socket.SOCK_DGRAM
            )
            return str(found[0][4][0]), int(found[0][4][1])
        raise Refused(Fault.SIP_UNREACHABLE, f"the host of {uri} does not resolve")
