"""Work at the start of the service: secrets sealed again, and warnings about settings and about LiveKit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from connector.api.carrier.signed import ALLOW_UNSIGNED, SignatureCheck
from connector.carriers.carrier import Carriers
from connector.config import Settings
from connector.errors import ConnectorError
from connector.room.admin import RoomAdmin
from connector.sip.secrets import SipSecrets
from connector.storage.base import Store
from connector.tokens import WebhookKeys

log = structlog.get_logger()

LOOK_EVERY = 5.0
"""Seconds between two checks of LiveKit, if it was unavailable at the start."""


def warn_of_unsigned_webhooks(settings: Settings, carriers: Carriers, signatures: SignatureCheck) -> None:
    """Warns that webhooks of some carriers are not checked, if the settings allow that."""
    if settings.allow_unsigned_webhooks:
        log.warning(
            "webhook signatures are not required: anyone who knows a webhook URL can fake calls; development only",
            setting=ALLOW_UNSIGNED,
            unchecked=[provider.value for provider in carriers if not signatures.signs(provider)],
        )


async def warn_of_held_phones(store: Store, carriers: Carriers, settings: Settings) -> None:
    """Warns about carriers in use that keep the phone line open after the stream ends, if there is no API key to
    hang it up: phones would stay on a silent, billed line. Raises StoreError."""
    with_connectors = {connector.provider for connector in await store.connectors.list()}
    for provider, carrier in sorted(carriers.items()):
        if not carrier.holds_calls:
            continue
        accounts = carrier.accounts(settings)
        is_used = provider in with_connectors or carrier.is_configured(settings)
        unable = [account.id or None for account in accounts.all if account not in accounts.with_api]
        if is_used and (unable or not accounts.with_api):
            log.warning(
                "phones of this carrier cannot be hung up by the connector, and may stay on a silent line",
                carrier=carrier.title,
                set=carrier.rest_settings,
                **({"accounts": unable} if any(unable) else {}),
            )


async def watch_livekit(admin: RoomAdmin) -> None:
    """Logs whether LiveKit can be used, until it can. The start does not wait for LiveKit, which may start later. The
    operator should see the problem here, not only when calls are refused."""
    said = ""
    while True:
        try:
            await admin.check()
        except ConnectorError as error:
            if error.message != said:
                log.warning("LiveKit cannot be used: calls will be refused", error=error.message)
            said = error.message
        else:
            if said:
                log.info("LiveKit can be used now")
            return
        await asyncio.sleep(LOOK_EVERY)


async def reseal(store: Store, keys: WebhookKeys, own_secrets: Sequence[str]) -> None:
    """Seals, with the newest secret, all values in the store that are plain text or sealed with an older secret.
    Afterwards the older secret is no longer needed."""
    written = await store.reseal()
    written += await SipSecrets(store.sip_numbers, own_secrets).reseal()
    for entry in await store.connectors.list():
        fresh = keys.resealed(entry)
        if fresh is not None:
            written += await store.connectors.replace(fresh, entry)
    if written:
        log.info("secrets in the store were sealed with the newest secret", documents=written)
