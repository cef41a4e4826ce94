"""The running service does what its OpenAPI document says: schemathesis asks it everything the document allows, and
much that it does not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from livekit import api

from demo.connector_process import ConnectorProcess
from demo.livekit_server import LiveKitServer

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 3
"""For each operation, beside the edge cases of every field, which are always tried."""


@pytest.mark.alone
@pytest.mark.timeout(240)
async def test_the_document_and_the_service_agree(livekit: LiveKitServer, tmp_path: Path) -> None:
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_grants(api.VideoGrants(room_create=True))
    environment = {
        "LIVEKIT_URL": livekit.url,
        "LIVEKIT_API_KEY": livekit.api_key,
        "LIVEKIT_API_SECRET": livekit.api_secret,
    }
    async with ConnectorProcess(environment) as connector:
        tried = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(CONFIG),
            "run",
            f"{connector.url}/v2/openapi.json",
            *("--header", f"Authorization: {token.to_jwt()}"),
            *("--phases", "coverage,fuzzing,stateful"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"),
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await tried.communicate()
        assert tried.returncode == 0, said.decode()
        assert " broke" not in connector.log(), "a request made the connector fail"
