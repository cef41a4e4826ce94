"""A small TCP load balancer, as its own process: `python -m demo.balancer --port 9000 8081 8082`.

It sends each connection to the next server that is ready (`/readyz`), as the proxies in front of a real service do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from itertools import count

import aiohttp

from demo.ports import PortLease
from demo.process import CHECKOUT, ChildProcess, Server

_PROBE_EVERY = 0.2
_START_PATIENCE = 20.0
_BLOCK = 65536
_LISTENING = "listening"


class Balancer:
    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._ready: list[int] = []
        self._turns = count()

    async def probe(self) -> None:
        """Keep the list of servers that are ready."""
        timeout = aiohttp.ClientTimeout(total=1)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            while True:
                answers = await asyncio.gather(*(self._is_ready(session, port) for port in self._ports))
                self._ready = [port for port, ready in zip(self._ports, answers, strict=True) if ready]
                await asyncio.sleep(_PROBE_EVERY)

    @staticmethod
    async def _is_ready(session: aiohttp.ClientSession, port: int) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the next server that accepts it, ready ones first."""
        turn = next(self._turns)
        ready = self._ready or list(self._ports)
        others = [port for port in self._ports if port not in ready]
        for port in (*ready[turn % len(ready) :], *ready[: turn % len(ready)], *others):
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
                return
        writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while block := await source.read(_BLOCK):
            sink.write(block)
            await sink.drain()
    except (ConnectionError, OSError):
        sink.transport.abort()  # An end of the connection on one side ends it on the other.
    finally:
        with contextlib.suppress(OSError):
            sink.close()


class BalancerProcess(Server):
    """The balancer in front of `ports`, in its own process, on the port of `lease`."""

    def __init__(self, lease: PortLease, ports: Sequence[int]) -> None:
        self._lease = lease
        argv = [sys.executable, "-m", "demo.balancer", "--port", str(lease.port), *map(str, ports)]
        super().__init__(ChildProcess("balancer", argv, cwd=CHECKOUT), self._lease.close)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._lease.port}"

    async def _until_ready(self) -> None:
        # Not a request: another balancer on the same port could answer it.
        await self._process.until_prints(_LISTENING, _START_PATIENCE)


async def serve(port: int, ports: Sequence[int]) -> None:
    balancer = Balancer(ports)
    server = await asyncio.start_server(balancer.carry, "127.0.0.1", port, reuse_address=True, reuse_port=True)
    print(_LISTENING, flush=True)
    async with server:
        await asyncio.gather(server.serve_forever(), balancer.probe())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.balancer", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where to listen, on 127.0.0.1")
    parser.add_argument("servers", type=int, nargs="+", help="ports of the servers on 127.0.0.1")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.servers))


if __name__ == "__main__":
    main()
