"""The integration tests' stage (a real livekit-server, a connector, a carrier), and the programs, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.programs import CLIENTS, WEBHOOKS, Program, build
from tests.integration.conftest import livekit, pytest_runtest_makereport, room, stage

__all__ = ["livekit", "node", "pytest_runtest_makereport", "room", "sdk", "stage", "webhook"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            # The time limit is for the test alone: what its fixtures build has a limit of its own.
            item.add_marker(pytest.mark.timeout(60, func_only=True))


@pytest.fixture(scope="session", params=CLIENTS)
def sdk(request: pytest.FixtureRequest) -> Program:
    """The client program of one SDK after the other."""
    program = CLIENTS[request.param]
    build(program, request.config)
    return program


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Program:
    """The one for JavaScript."""
    build(CLIENTS["node"], request.config)
    return CLIENTS["node"]


@pytest.fixture(scope="session", params=WEBHOOKS)
def webhook(request: pytest.FixtureRequest) -> Program:
    """The example of one language after the other."""
    program = WEBHOOKS[request.param]
    build(program, request.config)
    return program
