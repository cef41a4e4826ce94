"""`connector doctor`: finds problems of a set-up and says how to fix them."""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from connector.api.carrier.connect_url import CHECK_PATH
from connector.cli.common import misspelt
from connector.cli.doctor_accounts import account_findings
from connector.cli.doctor_agent import agent_findings
from connector.cli.doctor_carriers import carrier_findings
from connector.cli.doctor_ice import ice_findings
from connector.cli.doctor_sip import sip_findings
from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError, Internal
from connector.livekit_api import LiveKitApi, opened_livekit, unreachable
from connector.room.admin import RoomAdmin
from connector.storage.base import Store, StoreTooNew
from connector.storage.stores import opened

MAX_CLOCK_DIFFERENCE = 30.0
"""Seconds. Tokens tolerate a minute; a clock that is off by half of that should be corrected."""
SAFE_SECRET = 32
"""Characters; RFC 7518, 3.2: an HS256 key has at least as many bytes as its hash."""


async def examine(settings: Settings, agent: str = "") -> list[Finding]:
    """Run every check; none of them raises. `agent`: the agent name of a worker that should be registered."""
    async with opened_livekit(settings) as livekit:
        results = await asyncio.gather(
            _variables(),
            _livekit(settings, livekit),
            ice_findings(settings, livekit),
            _public_url(settings),
            _clock(settings),
            store_findings(settings),
            carrier_findings(settings),
            account_findings(settings),
            sip_findings(settings, livekit),
            agent_findings(livekit, agent),
        )
    return [finding for findings in results for finding in findings]


async def _variables() -> list[Finding]:
    return [Finding("warning", "settings", line, "correct its name, or unset it") for line in misspelt()]


async def _livekit(settings: Settings, livekit: LiveKitApi) -> list[Finding]:
    try:
        await RoomAdmin(livekit).check()
    except Internal as error:
        return [
            Finding("ok", "LiveKit", f"{settings.livekit_url} answers"),
            Finding(
                "problem",
                "credentials",
                error.message,
                "take the pair under `keys:` in livekit-server's config",
            ),
        ]
    except ConnectorError as error:
        return [
            Finding(
                "problem",
                "LiveKit",
                error.message,
                "start livekit-server, or set LIVEKIT_URL to where it listens",
            )
        ]
    findings = [
        Finding("ok", "LiveKit", f"{settings.livekit_url} answers"),
        Finding("ok", "credentials", "livekit-server accepts the API key and secret"),
    ]
    if len(settings.livekit_api_secret.get_secret_value()) < SAFE_SECRET:
        findings.append(
            Finding(
                "warning",
                "credentials",
                f"the API secret is shorter than {SAFE_SECRET} characters, so tokens could be forged by guessing",
                "make a new pair with `livekit-server generate-keys`",
            )
        )
    return findings


async def _public_url(settings: Settings) -> list[Finding]:
    origin = settings.public_origin
    findings = []
    if urlsplit(origin).scheme != "https":
        findings.append(
            Finding(
                "problem",
                "public URL",
                f"{origin} is not https; carriers open wss:// only"
                if settings.public_url
                else f"not set, so carriers would be sent to {origin}, which they cannot reach",
                "put a TLS proxy in front (see deploy/) and set CONNECTOR_PUBLIC_URL=https://…",
            )
        )
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"{origin}/healthz") as response,
        ):
            body = await response.text()
            healthy = response.status == 200 and '"status"' in body
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        findings.append(
            Finding(
                "problem",
                "public URL",
                f"{origin}/healthz cannot be reached: {unreachable(error)}",
                "start `connector serve`, then check DNS, certificate, proxy and firewall",
            )
        )
        return findings
    if healthy:
        findings.append(Finding("ok", "public URL", f"{origin} reaches a connector"))
        findings.append(await _websocket(origin))
    else:
        findings.append(
            Finding("problem", "public URL", f"{origin}/healthz is not a connector", "check the proxy's routes")
        )
    return findings


async def _websocket(origin: str) -> Finding:
    """Checks that a proxy forwards WebSockets, not only requests: otherwise calls are answered, and end at once."""
    subject = "WebSocket"
    mend = "configure the proxy to pass WebSockets on: HTTP/1.1, Upgrade and Connection (see deploy/)"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.ws_connect(f"{origin}{CHECK_PATH}", max_msg_size=1024) as websocket,
        ):
            closed = await websocket.receive(timeout=5)
    except aiohttp.WSServerHandshakeError as error:
        if error.status in (404, 405):
            return Finding("warning", subject, f"{origin} answered {error.status}: an older connector?", mend)
        return Finding("problem", subject, f"{origin} answered {error.status} to a WebSocket's handshake", mend)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Finding("problem", subject, f"{origin} accepts no WebSocket: {unreachable(error)}", mend)
    if closed.extra != "connector":
        return Finding("problem", subject, f"the server that accepts WebSockets at {origin} is not a connector", mend)
    return Finding("ok", subject, f"{origin} accepts WebSockets")


async def _clock(settings: Settings) -> list[Finding]:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
            session.get(settings.livekit_http_url) as response,
        ):
            date = response.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError, OSError):
        return []
    if date is None:
        return [Finding("warning", "clock", "livekit-server sends no Date header, so the clocks cannot be compared")]
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return [
            Finding(
                "warning", "clock", "the Date header of LIVEKIT_URL is not a date, so the clocks cannot be compared"
            )
        ]
    difference = time.time() - theirs
    if abs(difference) > MAX_CLOCK_DIFFERENCE:
        return [
            Finding(
                "problem",
                "clock",
                f"this machine is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} livekit-server; "
                "tokens will be refused",
                "run an NTP client on both machines",
            )
        ]
    return [Finding("ok", "clock", f"within {MAX_CLOCK_DIFFERENCE:.0f} s of livekit-server's")]


async def store_findings(settings: Settings) -> list[Finding]:
    """Checks that the store opens, and reports settings of its server that are unsuitable for a store."""
    if settings.store_file is not None and not settings.store_file.exists():
        return [_store_to_come(settings.store_file)]
    try:
        async with opened(settings) as store:
            return [Finding("ok", "store", settings.store_place), *await _weaknesses(settings, store)]
    except ConnectorError as error:
        return [Finding("problem", "store", error.message, _mend_store(settings, error))]


def _store_to_come(file: Path) -> Finding:
    """The finding for a store file that does not exist; the check creates nothing."""
    folder = next(parent for parent in file.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        text = f"{file} does not exist, and cannot be created below {folder}"
        return Finding("problem", "store", text, "check the path and its permissions in CONNECTOR_STORE")
    return Finding(
        "warning",
        "store",
        f"{file} does not exist yet: `connector serve` creates it",
        "if the service has run already, run this command with its settings and in its folder, or set CONNECTOR_STORE",
    )


async def _weaknesses(settings: Settings, store: Store) -> list[Finding]:
    try:
        return [
            Finding("warning", "store", f"{settings.store_name} {what}", f"{mend} (docs/storage.md)")
            for what, mend in await store.weaknesses()
        ]
    except ConnectorError as error:
        return [Finding("warning", "store", f"the store's own configuration cannot be checked: {error.message}")]


def _mend_store(settings: Settings, error: ConnectorError) -> str:
    if isinstance(error, StoreTooNew):
        return "install that newer connector, or restore a back-up from before the upgrade (docs/storage.md)"
    if settings.store.startswith("sqlite"):
        return "check the path and its permissions in CONNECTOR_STORE"
    return "start Redis, or check host, port, user and password in CONNECTOR_STORE"
