"""Why another process did not carry out a command. Clients of the API see all of them as `unavailable`.

::

    PeerError                  base; never raised itself
    ├── NotCarried             certain: the command was not carried out, another process may be asked
    │   ├── PeerGone           the process is dead, or another one has its address
    │   ├── PeerUnreachable    no connection in time
    │   ├── NoPeerAddress      its lease has no address, or one that is not valid here
    │   └── NotHeld            the process does not hold the call
    └── AnswerLost             the command may have been carried out
"""

from __future__ import annotations

from connector.errors import Unavailable


class PeerError(Unavailable):
    result = ""
    """The label in the metric."""


class NotCarried(PeerError):
    pass


class PeerGone(NotCarried):
    result = "gone"


class PeerUnreachable(NotCarried):
    result = "unreachable"


class NoPeerAddress(NotCarried):
    result = "no_address"


class NotHeld(NotCarried):
    result = "not_held"


class AnswerLost(PeerError):
    result = "answer_lost"
