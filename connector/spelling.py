"""Names that are nearly right: the settings that an operator meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

_OTHERS = ("LIVEKIT_", "TWILIO_", "TELNYX_", "PLIVO_")
"""Prefixes that other programs use too: only a near miss is worth a word."""
_ELSEWHERE = frozenset({"CONNECTOR_ADDRESS", "CONNECTOR_GRPC_ADDRESS", "CONNECTOR_SIP_PASSWORD", "CONNECTOR_URL"})
"""Read by the proxies of deploy/, by `connector sip setup`, and by the applications in README.md and docs/."""
_KUBERNETES = re.compile(r"CONNECTOR_(?:\w+_)?(?:SERVICE_(?:HOST|PORT)\w*|PORT_\d+_(?:TCP|UDP)\w*)")
"""What Kubernetes sets in every pod beside a service of the name `connector`."""
_NEAR, _VERY_NEAR = 0.6, 0.86


def nearest(name: str, known: Iterable[str], cutoff: float = _NEAR) -> str:
    """The known name that looks most like this one, however it is cased and underscored; "" when none does."""
    by_letters = {_letters(each): each for each in known}
    found = get_close_matches(_letters(name), by_letters, n=1, cutoff=cutoff)
    return by_letters[found[0]] if found else ""


def unknown_variables(environment: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """Variables that look as if they were meant for us, each with the setting that it may mean or ""."""
    found = []
    for name in sorted(environment):
        upper = name.upper()
        if upper in known or upper in _ELSEWHERE or _KUBERNETES.fullmatch(upper):
            continue
        if upper.startswith("CONNECTOR_"):
            # Without the prefix, which all of them share.
            bare = {each.removeprefix("CONNECTOR_"): each for each in known}
            found.append((name, bare.get(nearest(upper.removeprefix("CONNECTOR_"), bare), "")))
        elif upper.startswith(_OTHERS):
            alike = [each for each in known if each.startswith(upper.partition("_")[0])]
            if meant := nearest(name, alike, _VERY_NEAR):
                found.append((name, meant))
    return found


def _letters(name: str) -> str:
    return name.upper().replace("_", "").replace("-", "")
