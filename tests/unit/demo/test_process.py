from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

import pytest

from demo import ports
from demo.livekit_server import ServerMissing, find_binary
from demo.ports import PortLease
from demo.process import ChildProcess, ProcessFailed


def python(code: str) -> ChildProcess:
    return ChildProcess("child", [sys.executable, "-u", "-c", code])


async def test_a_child_is_awaited_by_what_it_prints_and_stopped() -> None:
    child = python("import time; print('ready'); time.sleep(60)")
    child.spawn()
    await child.until_prints("ready", 5)
    assert child.pid
    with pytest.raises(RuntimeError, match="running already"):
        child.spawn()
    await child.stop()
    assert not child.is_running
    await child.stop()
    child.close()
    child.close()
    assert child.log() == "ready\n"


async def test_reading_what_a_child_prints_leaves_it_as_it_is() -> None:
    child = python("for number in range(20_000): print(number)")
    child.spawn()
    while child.is_running:
        child.log()
    lines = child.log().splitlines()
    await child.stop()
    child.close()
    assert lines == [str(number) for number in range(20_000)]


async def test_a_child_that_will_not_go_is_killed() -> None:
    child = python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)")
    child.spawn()
    await child.until_prints("ready", 5)
    await child.stop(grace=0.1)
    assert not child.is_running
    child.close()


async def test_a_child_that_ends_early_shows_its_last_words() -> None:
    child = python("import sys; print('no such thing'); sys.exit(3)")
    child.spawn()
    with pytest.raises(ProcessFailed, match=r"status 3(.|\n)*no such thing"):
        await child.until_answers("http://127.0.0.1:9/", 5)
    child.close()


async def test_a_child_that_never_gets_ready_is_given_up() -> None:
    child = python("import time; time.sleep(60)")
    child.spawn()
    with pytest.raises(ProcessFailed, match=r"did not print 'ready' within 0\.05 s"):
        await child.until_prints("ready", 0.05)
    await child.kill()
    child.close()


async def test_a_childs_output_survives_its_restart() -> None:
    child = python("print('once')")
    for times in (1, 2):
        child.spawn()
        await child.until_prints("once\n" * times, 5)
        await child.stop()
    assert child.log(lines=1) == "once"
    child.close()


def test_leased_ports_are_free_different_and_below_the_ephemeral_range() -> None:
    leases = [PortLease() for _ in range(20)]
    try:
        assert len({lease.port for lease in leases}) == 20
        for lease in leases:
            assert lease.port < ports._ephemeral_start()
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.bind(("127.0.0.1", lease.port))
    finally:
        for lease in leases:
            lease.close()


def test_a_port_is_leased_once_until_it_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = PortLease()
    monkeypatch.setattr(random, "sample", lambda *_: [lease.port])
    with pytest.raises(OSError, match="no free port"):
        PortLease()
    lease.close()
    again = PortLease()
    assert again.port == lease.port
    again.close()


def test_giving_a_port_back_twice_closes_nothing_else(tmp_path: Path) -> None:
    lease = PortLease()
    lease.close()
    with (tmp_path / "other").open("w") as other:
        lease.close()
        other.write("still open")


def test_a_port_in_use_is_not_leased(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setattr(random, "sample", lambda *_: [sock.getsockname()[1]])
        with pytest.raises(OSError, match="no free port"):
            PortLease()


def test_the_server_program_is_found_or_its_absence_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ".tools" / "livekit-server"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIVEKIT_SERVER_BIN", raising=False)
    assert find_binary() == program
    monkeypatch.setenv("LIVEKIT_SERVER_BIN", str(tmp_path / "missing"))
    with pytest.raises(ServerMissing, match="LIVEKIT_SERVER_BIN"):
        find_binary()
    monkeypatch.delenv("LIVEKIT_SERVER_BIN")
    program.unlink()
    monkeypatch.setattr("demo.livekit_server.__file__", str(tmp_path / "a" / "b.py"))
    with pytest.raises(ServerMissing, match="make setup"):
        find_binary()
