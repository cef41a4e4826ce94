"""What a call may say of the phone's number: everything, or, where it is to be hidden, nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from connector import numbers
from connector.model import CallRequest, Direction

_SHORTEST = 6
"""Digits from which on a number is looked for inside other text; a shorter one is anywhere by chance."""
_TELLING = 8
"""Last digits by which a number is known, however its country is written before them."""
_NOT_DIGITS = re.compile(r"\D")


class Privacy:
    """Knows the number that is to be hidden, and nobody else does: `request` is free of it."""

    def __init__(self, request: CallRequest) -> None:
        self._hides = request.hide_number
        self._inbound = request.direction is Direction.INBOUND
        self._digits: set[str] = set()
        from_number, to_number = self.numbers(request.from_number, request.to_number)
        attributes = self.own(request.participant.attributes)
        self.request = replace(
            request,
            from_number=from_number,
            to_number=to_number,
            participant=replace(request.participant, attributes=attributes),
        )

    def numbers(self, from_number: str, to_number: str) -> tuple[str, str]:
        """Of these two the ones that may be told: the service's own may, the phone's may not when it is hidden."""
        if not self._hides:
            return from_number, to_number
        digits = _NOT_DIGITS.sub("", from_number if self._inbound else to_number)
        if len(digits) >= _SHORTEST:
            self._digits.add(digits[-_TELLING:])
        return ("", to_number) if self._inbound else (from_number, "")

    def own(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Of the attributes that our side asked for, those that do not hold the hidden number."""
        return {name: value for name, value in attributes.items() if not self._tells(value)}

    def foreign(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Of the attributes that a carrier filled, those that hold no number: the hidden one may not be known."""
        if not self._hides:
            return dict(attributes)
        return {name: value for name, value in self.own(attributes).items() if not numbers.IN_TEXT.search(value)}

    def _tells(self, value: str) -> bool:
        if not self._hides or not self._digits:
            return False
        digits = _NOT_DIGITS.sub("", value)
        return any(hidden in digits for hidden in self._digits)
