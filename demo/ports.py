"""Free ports, for several test runs on one machine at the same time.

They are below the kernel's ephemeral range; otherwise a socket that WebRTC opens could take a port between its choice
and the bind. A lock file marks a port as taken until its lease ends, so that two runs never choose the same port, even
while its server is restarting.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

_LOWEST = 12_000
_DEFAULT_EPHEMERAL = 32_768


class PortLease:
    """One free port of 127.0.0.1, TCP and UDP, until `close`."""

    def __init__(self) -> None:
        self.port, handle = _take()
        self._handle: int | None = handle

    def close(self) -> None:
        """Releases the port; a second call has no effect."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _take() -> tuple[int, int]:
    """Returns a port and the open lock file that reserves it."""
    directory = Path(tempfile.gettempdir()) / f"connector-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    for port in random.sample(range(_LOWEST, _ephemeral_start()), 500):
        handle = os.open(directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        if _is_free(port):
            return port, handle
        os.close(handle)
    raise OSError(errno.EADDRINUSE, "no free port on 127.0.0.1")


def _ephemeral_start() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    except OSError:
        return _DEFAULT_EPHEMERAL
    return max(int(text.split()[0]), _LOWEST + 1000)


def _is_free(port: int) -> bool:
    with ExitStack() as stack:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
