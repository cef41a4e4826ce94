"""A carrier's accounts: the secrets that verify request signatures, and the credentials for REST calls.

Each secret is a tuple, newest first, so that the old one stays valid during rotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from connector.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How a carrier's accounts are identified, and which account may act for another."""

    title: str
    """The carrier's name, shown to people."""
    setting: str
    """The setting that lists several accounts."""
    key_names_account: bool = False
    """Whether a REST API key identifies its account; otherwise the account id is the user name."""
    unnamed_prefix: str = ""
    """Prefix of the ids of accounts that requests never name; empty: no such accounts exist."""
    main_serves_all: bool = False
    """Whether the main account can access its subaccounts' resources with its own token."""


@dataclass(frozen=True, slots=True)
class CarrierAccount:
    """One account. If the settings do not name it, `id` is empty and the entry stands for every account without its own
    entry."""

    id: str
    signing: tuple[str, ...] = field(default=(), repr=False)
    """Auth tokens or public keys that verify the account's requests."""
    rest: tuple[str, ...] = field(default=(), repr=False)
    """Auth tokens or API keys for REST calls."""


class CarrierAccounts:
    """The configured accounts of one carrier. The first is the default account."""

    def __init__(self, rules: AccountRules, accounts: Sequence[CarrierAccount] = ()) -> None:
        self.rules = rules
        self.all = tuple(accounts)
        self._by_id = {account.id: account for account in self.all if account.id}
        self._unnamed = [account for account in self.all if self._is_never_named(account)]

    def _is_never_named(self, account: CarrierAccount) -> bool:
        prefix = self.rules.unnamed_prefix
        return not account.id or bool(prefix and account.id.startswith(prefix))

    @property
    def signs(self) -> bool:
        """Whether this carrier's requests can be verified."""
        return any(account.signing for account in self.all)

    @property
    def with_api(self) -> tuple[CarrierAccount, ...]:
        """The accounts with usable REST credentials; the first one places calls."""
        return tuple(account for account in self.all if account.rest and self._can_call(account))

    def _can_call(self, account: CarrierAccount) -> bool:
        return bool(account.id) or self.rules.key_names_account

    def is_known(self, account_id: str) -> bool:
        """Whether requests of this account can be verified; an empty id: the request names no account."""
        return bool(self.signing(account_id))

    def signing(self, account_id: str) -> tuple[str, ...]:
        """Returns the secrets with which this account may sign a request: all secrets if the request names no account,
        as a WebSocket handshake does; none if the account is not configured."""
        named = self._by_id.get(account_id)
        chosen = self.all if not account_id else ([named] if named else []) + self._unnamed
        return tuple(dict.fromkeys(secret for account in chosen for secret in account.signing))

    def calling(self, account_id: str) -> CarrierAccount:
        """Returns the account with the credentials for a call of this account. FailedPrecondition if there is none."""
        able = self.with_api
        named = [account for account in able if account.id == account_id]
        unnamed = [account for account in able if account in self._unnamed]
        rest = able if not account_id or self.rules.main_serves_all else ()
        for account in (*named, *unnamed, *rest):
            return account
        raise FailedPrecondition(
            f"the call is of {self.rules.title} account {account_id}, which {self.rules.setting} does not have"
        )


def listed(text: str | SecretStr) -> tuple[str, ...]:
    """Splits a comma-separated list of secrets, the newest first."""
    plain = text if isinstance(text, str) else text.get_secret_value()
    return tuple(part.strip() for part in plain.split(",") if part.strip())


def by_token(accounts: Mapping[str, tuple[SecretStr, ...]]) -> list[CarrierAccount]:
    """Creates accounts that use the same tokens for signatures and for the REST API."""
    tokens = {name: tuple(token.get_secret_value() for token in several) for name, several in accounts.items()}
    return [CarrierAccount(name, each, each) for name, each in tokens.items()]


def merged(
    rules: AccountRules,
    plain_id: str,
    signing: tuple[str, ...],
    rest: tuple[str, ...],
    others: Sequence[CarrierAccount],
) -> CarrierAccounts:
    """Puts the account of the single-account settings first. Secrets of the same account in `others` are appended."""
    more = next((account for account in others if account.id == plain_id), CarrierAccount(plain_id))
    plain = CarrierAccount(plain_id, (*signing, *more.signing), (*rest, *more.rest))
    rest_of_them = [account for account in others if account is not more]
    return CarrierAccounts(rules, ([plain] if plain.signing or plain.rest else []) + rest_of_them)
