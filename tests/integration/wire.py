"""The connector's API as bytes on the wire: for what no SDK sends, and for how every byte of an answer looks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt

from connector.app import Connector
from tests.integration.harness import Stage

LIVEKIT_PATH = "/twirp/livekit.Connector/ConnectTwilioCall"
OUR_PATH = "/twirp/connector.v1.Connector/ConnectTwilioCall"
JSON = "application/json"
PROTOBUF = "application/protobuf"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded

    @property
    def code(self) -> str:
        """Of a Twirp error; it must be one to the letter."""
        assert self.content_type == JSON
        assert self.document.keys() == {"code", "msg", "meta"}
        return str(self.document["code"])

    @property
    def message(self) -> str:
        return str(self.document["msg"])

    @property
    def field(self) -> str:
        """What the error says is wrong, machine-readable."""
        return str(self.document["meta"].get("argument", ""))


def claims(stage: Stage, **changes: Any) -> dict[str, Any]:
    """What a good API token says."""
    now = int(time.time())
    return {
        "iss": stage.livekit.api_key,
        "nbf": now - 5,
        "exp": now + 600,
        "video": {"roomCreate": True},
    } | changes


def token(stage: Stage, secret: str = "", algorithm: str = "HS256", **changes: Any) -> str:
    key = secret or stage.livekit.api_secret
    return jwt.encode(claims(stage, **changes), "" if algorithm == "none" else key, algorithm=algorithm)


class Wire:
    """Requests to one connector; authorised unless the headers say otherwise."""

    def __init__(self, stage: Stage, connector: Connector, session: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.connector = connector
        self.session = session
        self.origin = f"http://127.0.0.1:{connector.port}"

    async def send(
        self,
        body: Any,
        content_type: str = JSON,
        path: str = LIVEKIT_PATH,
        method: str = "POST",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """`body` is bytes, or an async iterable of bytes that is sent in chunks, without a length."""
        given = {"Authorization": f"Bearer {token(self.stage)}", "Content-Type": content_type} | (headers or {})
        kept = {name: value for name, value in given.items() if value}
        async with self.session.request(method, self.origin + path, data=body, headers=kept) as response:
            kind = response.headers.get("Content-Type", "")
            return Reply(response.status, kind, await response.read(), dict(response.headers))

    async def send_json(self, document: Any, path: str = LIVEKIT_PATH) -> Reply:
        return await self.send(json.dumps(document).encode(), JSON, path)

    async def assert_nothing_created(self, *rooms: str) -> None:
        """No call in memory or in the store, and none of these rooms."""
        assert self.connector.calls.live() == []
        assert await self.connector.store.list_calls() == []
        assert not await self.stage.rooms() & set(rooms)


async def wire_to(stage: Stage, connector: Connector | None = None) -> Wire:
    return Wire(stage, connector or await stage.connector(), await stage.http())
