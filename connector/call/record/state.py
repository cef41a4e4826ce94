"""The states of a call and all transitions. A transition that is not in the table is a bug and raises an error.

=========  =================  =======  ==============================================================
from       trigger            to       when
=========  =================  =======  ==============================================================
pending    JOINED_HIDDEN      ringing  outbound: the hidden participant is in the room
pending    STREAM_STARTED     active   inbound: the carrier's stream started
ringing    STREAM_STARTED     active   outbound: the callee answered and the stream started
pending    END                ended    any reason
ringing    END                ended    any reason
active     END                ended    any reason
=========  =================  =======  ==============================================================

`ended` has no transition, not even END: the first end reason is kept.
"""

from __future__ import annotations

from enum import Enum, auto

from connector.model.call import LIVE_STATES, CallState, Direction


class Trigger(Enum):
    JOINED_HIDDEN = auto()
    STREAM_STARTED = auto()
    END = auto()


class IllegalTransition(RuntimeError):
    """A bug in this program: the state does not allow this trigger."""


_EDGES: dict[tuple[Direction, CallState, Trigger], CallState] = {
    (Direction.OUTBOUND, CallState.PENDING, Trigger.JOINED_HIDDEN): CallState.RINGING,
    (Direction.OUTBOUND, CallState.RINGING, Trigger.STREAM_STARTED): CallState.ACTIVE,
    (Direction.INBOUND, CallState.PENDING, Trigger.STREAM_STARTED): CallState.ACTIVE,
} | {(direction, state, Trigger.END): CallState.ENDED for direction in Direction for state in LIVE_STATES}


def next_state(direction: Direction, state: CallState, trigger: Trigger) -> CallState:
    """The state after `trigger`. Raises IllegalTransition if the table has no such transition."""
    try:
        return _EDGES[direction, state, trigger]
    except KeyError:
        raise IllegalTransition(f"{direction} call: {trigger.name} in state {state}") from None
