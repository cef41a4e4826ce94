"""Finds the setting that an operator probably meant with a misspelled name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

_OTHERS = ("LIVEKIT_", "TWILIO_", "TELNYX_", "PLIVO_")
"""Prefixes that other programs use too: only a close match is reported."""
_ELSEWHERE = frozenset({"CONNECTOR_ADDRESS", "CONNECTOR_GRPC_ADDRESS", "CONNECTOR_SIP_PASSWORD", "CONNECTOR_URL"})
"""Variables for the proxies of deploy/, `connector sip setup`, and the applications in README.md and docs/."""
_KUBERNETES = re.compile(r"CONNECTOR_(?:\w+_)?(?:SERVICE_(?:HOST|PORT)\w*|PORT_\d+_(?:TCP|UDP)\w*)")
"""Variables that Kubernetes sets in every pod if a service has the name `connector`."""
_NEAR, _VERY_NEAR = 0.6, 0.86


def nearest(name: str, known: Iterable[str], cutoff: float = _NEAR) -> str:
    """Returns the most similar known name, ignoring case, `_` and `-`; "" if none is similar enough."""
    by_letters = {_letters(each): each for each in known}
    found = get_close_matches(_letters(name), by_letters, n=1, cutoff=cutoff)
    return by_letters[found[0]] if found else ""


def unknown_variables(environment: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """Returns unknown variables that were probably meant for us, each with the similar setting or ""."""
    found = []
    for name in sorted(environment):
        upper = name.upper()
        if upper in known or upper in _ELSEWHERE or _KUBERNETES.fullmatch(upper):
            continue
        if upper.startswith("CONNECTOR_"):
            # Compared without the common prefix, which would make all names similar.
            bare = {each.removeprefix("CONNECTOR_"): each for each in known}
            found.append((name, bare.get(nearest(upper.removeprefix("CONNECTOR_"), bare), "")))
        elif upper.startswith(_OTHERS):
            alike = [each for each in known if each.startswith(upper.partition("_")[0])]
            if meant := nearest(name, alike, _VERY_NEAR):
                found.append((name, meant))
    return found


def _letters(name: str) -> str:
    return name.upper().replace("_", "").replace("-", "")
