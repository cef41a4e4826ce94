"""The name `acme`. A carrier of the product has a member of its own in `connector.model.provider.Provider`; this one
is added from outside, so that the product has nothing of it."""

from __future__ import annotations

from connector.model.provider import Provider


def _added(value: str) -> Provider:
    """A member that `Provider(value)` finds, and that nobody sees who goes through all of them."""
    member = str.__new__(Provider, value)
    member._name_, member._value_ = value.upper(), value
    Provider._value2member_map_[value] = member
    return member


ACME = _added("acme")


def show_to_pydantic() -> None:
    """To be called before pydantic's models are imported that have a carrier's name."""
    Provider._member_map_[ACME.name] = ACME
