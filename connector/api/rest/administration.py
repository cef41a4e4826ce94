"""Operations for administration: connectors, routing rules, webhooks. The service serves them over HTTP; the command
line can also run them directly on the store if no service runs."""

from __future__ import annotations

from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.api.rest.connector_operations import ConnectorRest
from connector.api.rest.operation import Operation
from connector.api.rest.rule_operations import RuleRest
from connector.api.rest.webhook_operations import WebhookRest
from connector.carriers.carrier import Carriers
from connector.config import Settings
from connector.storage.base import Store
from connector.tokens import WebhookKeys
from connector.webhooks.signing import KeyRing


def signature_check(settings: Settings, carriers: Carriers, origins: Origins) -> SignatureCheck:
    """Builds the signature check for all configured accounts."""
    accounts = {name: carrier.accounts(settings) for name, carrier in carriers.items()}
    return SignatureCheck(origins, carriers, accounts, allow_unsigned=settings.allow_unsigned_webhooks)


def administration(settings: Settings, carriers: Carriers, store: Store, keys: KeyRing) -> list[Operation]:
    """Returns the operations on this store; `keys` sign webhooks."""
    origins = Origins(settings.public_origin, settings.regions, settings.countries)
    rules = RuleRest(store, {settings.livekit_api_key, *settings.api_keys})
    webhook_keys = WebhookKeys(settings.own_secrets)
    signatures = signature_check(settings, carriers, origins)
    connectors = ConnectorRest(store, webhook_keys, origins, carriers, signatures, rules)
    webhooks = WebhookRest(store, keys, allow_private=settings.webhook_allow_private)
    return [*connectors.operations(), *rules.operations(), *webhooks.operations()]
