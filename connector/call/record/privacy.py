"""Removes the phone's number from records, events and attributes of a call whose request hides it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from connector import numbers
from connector.model.call import CallRequest, Direction

_SHORTEST = 6
"""Minimum number of digits for which a number is searched in other text. Shorter ones would match by chance."""
_TELLING = 8
"""Number of last digits that are compared, so that the notation of the country code does not matter."""
_NOT_DIGITS = re.compile(r"\D")


class Privacy:
    """Filters the hidden number. Only this object knows the number; its `request` does not contain it."""

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
        """The two numbers, with the phone's number replaced by "" if it is hidden. Our own number is never hidden."""
        if not self._hides:
            return from_number, to_number
        digits = _NOT_DIGITS.sub("", from_number if self._inbound else to_number)
        if len(digits) >= _SHORTEST:
            self._digits.add(digits[-_TELLING:])
        return ("", to_number) if self._inbound else (from_number, "")

    def own(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """The attributes from our side, without those that contain the hidden number."""
        return {name: value for name, value in attributes.items() if not self._tells(value)}

    def foreign(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """The attributes from the carrier, without those that contain any phone number if the number is hidden: we may
        not know the hidden number, so we cannot search for it."""
        if not self._hides:
            return dict(attributes)
        return {name: value for name, value in self.own(attributes).items() if not numbers.IN_TEXT.search(value)}

    def _tells(self, value: str) -> bool:
        if not self._hides or not self._digits:
            return False
        digits = _NOT_DIGITS.sub("", value)
        return any(hidden in digits for hidden in self._digits)
