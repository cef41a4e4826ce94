"""scripts/clients.py builds what has changed, keeps what has not, and names the tool that is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class Builds:
    """A program in a made-up language, whose builds are counted."""

    def __init__(self, clients: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.folder = root / "program"
        self.folder.mkdir()
        (self.folder / "build.file").write_text("as it was")
        self._clients = clients
        tools = (clients.Tool("made-up", (2, 10), "made-up-package"),)
        language = clients.Language("Made-up", "build.file", tools, Path("build"), self._command, "no time")
        monkeypatch.setattr(clients, "LANGUAGES", (language,))
        monkeypatch.setattr(clients, "ROOT", root)
        monkeypatch.setattr(clients, "run_logged", self._run)
        monkeypatch.setenv("PATH", str(root / "bin"))
        self.fails = False

    def _command(self, folder: Path) -> list[str]:
        return ["build", str(folder)]

    def _run(self, title: str, command: list[str], expect: str) -> None:
        assert command == ["build", str(self.folder)]
        self.count += 1
        if self.fails:
            raise self._clients.StepFailed("it does not compile")

    def install_tool(self, version: str) -> None:
        tool = self.folder.parent / "bin" / "made-up"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho 'made-up {version} (of 2026)'\n")
        tool.chmod(0o755)

    def ensure(self) -> None:
        self._clients.ensure_built(self.folder)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("clients", SCRIPTS / "clients.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up there.
    monkeypatch.setitem(sys.modules, "clients", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def builds(clients: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builds:
    return Builds(clients, tmp_path, monkeypatch)


def test_builds_once(builds: Builds) -> None:
    builds.install_tool("2.10.1")
    builds.ensure()
    builds.ensure()
    assert builds.count == 1


@pytest.mark.parametrize("name", ["build.file", "src/new.file"])
def test_builds_again_when_a_file_changes(builds: Builds, name: str) -> None:
    builds.install_tool("2.10.1")
    builds.ensure()
    file = builds.folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("another")
    builds.ensure()
    assert builds.count == 2


def test_builds_again_with_another_tool(builds: Builds) -> None:
    builds.install_tool("2.10.1")
    builds.ensure()
    builds.install_tool("2.11.0")
    builds.ensure()
    assert builds.count == 2


@pytest.mark.parametrize("name", ["README.md", "node_modules/package/index.js", "target/output"])
def test_keeps_a_build_whatever_is_no_source(builds: Builds, name: str) -> None:
    builds.install_tool("2.10.1")
    builds.ensure()
    file = builds.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("another")
    builds.ensure()
    assert builds.count == 1


def test_a_build_that_failed_is_tried_again(builds: Builds, clients: ModuleType) -> None:
    builds.install_tool("2.10.1")
    builds.ensure()
    (builds.folder / "build.file").write_text("wrong")
    builds.fails = True
    for _ in range(2):
        with pytest.raises(clients.StepFailed, match="does not compile"):
            builds.ensure()
    assert builds.count == 3


def test_a_missing_tool_is_named(builds: Builds, clients: ModuleType) -> None:
    with pytest.raises(clients.StepFailed, match=r"needs made-up >= 2\.10, and there is none .*made-up-package"):
        builds.ensure()
    assert builds.count == 0


@pytest.mark.parametrize("version", ["2.9.9", "1.11"])
def test_a_tool_that_is_too_old_is_named(builds: Builds, clients: ModuleType, version: str) -> None:
    builds.install_tool(version)
    with pytest.raises(clients.StepFailed, match=rf"needs made-up >= 2\.10, and this machine has {version}"):
        builds.ensure()
    assert builds.count == 0


@pytest.mark.parametrize("version", ["2.10", "2.10.0", "3.0"])
def test_a_tool_that_is_new_enough_will_do(builds: Builds, version: str) -> None:
    builds.install_tool(version)
    builds.ensure()
    assert builds.count == 1


def test_a_folder_of_no_known_language_is_refused(builds: Builds, clients: ModuleType) -> None:
    (builds.folder / "build.file").rename(builds.folder / "other.file")
    with pytest.raises(clients.StepFailed, match="no build file"):
        builds.ensure()
