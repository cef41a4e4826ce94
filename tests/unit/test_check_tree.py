"""scripts/check_tree.py finds what must not be committed, and lets ordinary lines pass."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def check_tree(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("check_tree", SCRIPTS / "check_tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Put together from parts, or this file would be found itself.
@pytest.mark.parametrize(
    "line",
    [
        'path = "/' + 'home/ada/x"',
        "cd /" + "work",
        "out: /" + "tmp/result.json",
        "file:///" + "Users/ada",
        "(/" + "root/.cache)",
        "--index-url https://" + "pypi" + ".org/simple",
        "https://files." + "pythonhosted" + ".org/packages",
        "https://registry." + "npmjs" + ".org/left-pad",
        "GOPROXY=proxy." + "golang" + ".org",
        "https://index." + "crates" + ".io/li/ve/livekit-api",
        "https://static." + "crates" + ".io/crates",
    ],
)
def test_finds(check_tree: ModuleType, tmp_path: Path, line: str) -> None:
    file = tmp_path / "sample.txt"
    file.write_text(f"fine\n{line}\n")
    assert [finding.split(" ")[0] for finding in check_tree.findings(file)] == ["sample.txt:2:"]


@pytest.mark.parametrize(
    "line",
    [
        "https://example.org/home/ada",
        "/var/lib/connector",
        "#!/usr/bin/env bash",
        "a/work/b, ./tmp/x, ~/home, $HOME/work, ../root",
        "/homepage /workers /tmpfs /rooted",
        "github.com/livekit/livekit-server/cmd/server",
        'source = "registry+https://github.com/rust-lang/' + 'crates.io-index"',
    ],
)
def test_lets_pass(check_tree: ModuleType, tmp_path: Path, line: str) -> None:
    file = tmp_path / "sample.txt"
    file.write_text(line)
    assert list(check_tree.findings(file)) == []


def test_finds_programs_and_large_files(check_tree: ModuleType, tmp_path: Path) -> None:
    program, large = tmp_path / "program", tmp_path / "large"
    program.write_bytes(b"\x7fELF\0")
    large.write_bytes(b"x" * 1_000_001)
    assert list(check_tree.findings(program)) == ["program: an executable"]
    assert list(check_tree.findings(large)) == ["large: 1000001 bytes is too large for a source file"]


def test_finds_what_is_not_text(check_tree: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "dump.bin"
    file.write_bytes(b"REDIS0011\0\xfe")
    assert list(check_tree.findings(file)) == ["dump.bin: not text"]
