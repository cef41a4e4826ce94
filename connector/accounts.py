"""A carrier's accounts: which secrets check a request's signature, and which credentials a REST call takes.

Each secret is a tuple, newest first, so that an old one still counts while it is rotated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from connector.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How the accounts of one carrier are named, and which may act for another."""

    title: str
    """The carrier's name for people."""
    setting: str
    """The setting that lists several accounts."""
    key_names_account: bool = False
    """Whether a key of the REST API says whose it is; else the account's id is the user's name."""
    unnamed_prefix: str = ""
    """How the ids of accounts begin that no request names; empty: there are none such."""
    main_serves_all: bool = False
    """Whether the main account reaches the resources of its subaccounts with its own token."""


@dataclass(frozen=True, slots=True)
class CarrierAccount:
    """One account. `id` is empty where the settings do not name it: then it stands for every account that no other
    entry names."""

    id: str
    signing: tuple[str, ...] = field(default=(), repr=False)
    """What its requests are checked with: auth tokens, or public keys."""
    rest: tuple[str, ...] = field(default=(), repr=False)
    """What its REST calls are made with: auth tokens, or API keys."""


class CarrierAccounts:
    """The configured accounts of one carrier. The first is the default: the one that places calls."""

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
        """Whether this carrier's requests can be checked."""
        return any(account.signing for account in self.all)

    @property
    def with_api(self) -> tuple[CarrierAccount, ...]:
        """The accounts whose REST API can be called."""
        return tuple(account for account in self.all if account.rest and self._can_call(account))

    def _can_call(self, account: CarrierAccount) -> bool:
        return bool(account.id) or self.rules.key_names_account

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
        """The account whose credentials serve a call of this account. FailedPrecondition when none does."""
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
    """A secret, or several with commas between them, the newest first."""
    plain = text if isinstance(text, str) else text.get_secret_value()
    return tuple(part.strip() for part in plain.split(",") if part.strip())


def by_token(accounts: Mapping[str, tuple[SecretStr, ...]]) -> list[CarrierAccount]:
    """Accounts of which the same tokens sign requests and open the REST API."""
    tokens = {name: tuple(token.get_secret_value() for token in several) for name, several in accounts.items()}
    return [CarrierAccount(name, each, each) for name, each in tokens.items()]


def merged(
    rules: AccountRules,
    plain_id: str,
    signing: tuple[str, ...],
    rest: tuple[str, ...],
    others: Sequence[CarrierAccount],
) -> CarrierAccounts:
    """The account of the plain settings first; what the map says of the same account counts after it."""
    more = next((account for account in others if account.id == plain_id), CarrierAccount(plain_id))
    plain = CarrierAccount(plain_id, (*signing, *more.signing), (*rest, *more.rest))
    rest_of_them = [account for account in others if account is not more]
    return CarrierAccounts(rules, ([plain] if plain.signing or plain.rest else []) + rest_of_them)
