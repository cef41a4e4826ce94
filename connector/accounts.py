"""A carrier's accounts: which secrets check a request's signature, and which credentials a REST call takes.

Each secret is a tuple, newest first, so that an old one still counts while it is rotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from connector.errors import FailedPrecondition
from connector.model import Provider

TITLES = {Provider.TWILIO: "Twilio", Provider.TELNYX: "Telnyx", Provider.PLIVO: "Plivo"}
MAPS = {
    Provider.TWILIO: "TWILIO_ACCOUNTS",
    Provider.TELNYX: "TELNYX_ACCOUNTS",
    Provider.PLIVO: "PLIVO_ACCOUNTS",
}
"""The setting that lists several accounts."""
SIGNING_SETTINGS = {
    Provider.TWILIO: "TWILIO_AUTH_TOKEN",
    Provider.TELNYX: "TELNYX_PUBLIC_KEY",
    Provider.PLIVO: "PLIVO_AUTH_TOKEN",
}
"""The setting without which a carrier's requests cannot be checked."""
_PLIVO_SUBACCOUNT = "SA"
"""Plivo's requests name the main account alone, whichever of its subaccounts the call belongs to."""


@dataclass(frozen=True, slots=True)
class CarrierAccount:
    """One account. `id` is empty where the settings do not name it: then it stands for every account that no other
    entry names."""

    id: str
    signing: tuple[str, ...] = field(default=(), repr=False)
    """What its requests are checked with: auth tokens, or Telnyx's public keys in base64."""
    rest: tuple[str, ...] = field(default=(), repr=False)
    """What its REST calls are made with: auth tokens, or Telnyx's API keys."""


class CarrierAccounts:
    """The configured accounts of one carrier. The first is the default: the one that places calls."""

    def __init__(self, provider: Provider, accounts: Sequence[CarrierAccount] = ()) -> None:
        self.provider = provider
        self.all = tuple(accounts)
        self._by_id = {account.id: account for account in self.all if account.id}
        self._unnamed = [account for account in self.all if self._is_never_named(account)]

    def _is_never_named(self, account: CarrierAccount) -> bool:
        return not account.id or (self.provider is Provider.PLIVO and account.id.startswith(_PLIVO_SUBACCOUNT))

    @property
    def signs(self) -> bool:
        """Whether this carrier's requests can be checked."""
        return any(account.signing for account in self.all)

    @property
    def with_api(self) -> tuple[CarrierAccount, ...]:
        """The accounts whose REST API can be called."""
        return tuple(account for account in self.all if account.rest and self._can_call(account))

    def _can_call(self, account: CarrierAccount) -> bool:
        # Telnyx's API keys name their account; at the other two its id is the user's name.
        return bool(account.id) or self.provider is Provider.TELNYX

    def is_known(self, account_id: str) -> bool:
        """Whether requests of this account can be checked; an empty id is of a request that names none."""
        return bool(self.signing(account_id))

    def signing(self, account_id: str) -> tuple[str, ...]:
        """The secrets one of which must have signed a request of this account. All there are for a request that names
        no account, as a WebSocket's handshake; none for an account that is not configured."""
        named = self._by_id.get(account_id)
        chosen = self.all if not account_id else ([named] if named else []) + self._unnamed
        return tuple(dict.fromkeys(secret for account in chosen for secret in account.signing))

    def calling(self, account_id: str) -> CarrierAccount:
        """The account whose credentials serve a call of this account. FailedPrecondition when none does.

        Twilio's main account reaches the resources of its subaccounts with its own token
        (https://www.twilio.com/docs/iam/api/subaccounts), so there the default account serves for all others.
        """
        able = self.with_api
        named = [account for account in able if account.id == account_id]
        unnamed = [account for account in able if account in self._unnamed]
        rest = able if not account_id or self.provider is Provider.TWILIO else ()
        for account in (*named, *unnamed, *rest):
            return account
        title, setting = TITLES[self.provider], MAPS[self.provider]
        raise FailedPrecondition(f"the call is of {title} account {account_id}, which {setting} does not have")
