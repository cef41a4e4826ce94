"""What the tests of deploy/ share: each shipped proxy, in front of stand-ins or of the real services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from demo.ports import PortLease
from tests.conformance.deploy.backends import Backends
from tests.conformance.deploy.origin import ORIGINS, Authority, Origin, new_authority
from tests.conformance.deploy.service import Service
from tests.integration.conftest import livekit, room, stage
from tests.integration.harness import Stage

__all__ = ["livekit", "room", "stage"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def ports() -> Iterator[tuple[int, int, int]]:
    """Three free ports, for what stands behind a proxy."""
    leases = [PortLease() for _ in range(3)]
    first, second, third = (lease.port for lease in leases)
    yield first, second, third
    for lease in leases:
        lease.close()


@pytest.fixture(params=sorted(ORIGINS))
def proxy(request: pytest.FixtureRequest) -> type[Origin]:
    name: str = request.param
    return ORIGINS[name]


@pytest.fixture
async def origin(
    proxy: type[Origin], authority: Authority, ports: tuple[int, int, int], tmp_path: Path
) -> AsyncIterator[Origin]:
    """In front of `ports` (LiveKit, connector, its gRPC), on which nothing listens by itself."""
    origin = proxy(tmp_path, authority, *ports)
    try:
        await origin.start()
        yield origin
    finally:
        await origin.stop()


@pytest.fixture
async def backends(ports: tuple[int, int, int]) -> AsyncIterator[Backends]:
    """Stand-ins on `ports` that say what has reached them."""
    async with Backends(*ports) as backends:
        yield backends


@pytest.fixture
async def service(
    proxy: type[Origin],
    authority: Authority,
    ports: tuple[int, int, int],
    stage: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    """The real livekit-server and a connector behind one origin; LiveKit's SDK trusts its certificate."""
    # Read by the SDK's native part; Python's side is given the authority by hand.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    _, port, grpc_port = ports
    origin = proxy(tmp_path, authority, stage.livekit.port, port, grpc_port)
    connector = await stage.connector(port=port, grpc_port=grpc_port, public_url=origin.url)
    service = Service(stage, origin, connector)
    try:
        await origin.start()
        yield service
    finally:
        await service.close()
        await origin.stop()
