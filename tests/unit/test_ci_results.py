"""scripts/ci_results.py: what a CI run says in the end, and when it fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    # The name keeps dataclasses of the module working: they look their module up.
    spec = importlib.util.spec_from_file_location("ci_results", ROOT / "scripts" / "ci_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ci_results", module)
    spec.loader.exec_module(module)
    return module


def ran(folder: Path, name: str, again: tuple[str, ...] = (), counts: dict[str, int] | None = None) -> None:
    """What a target leaves behind."""
    numbers = {"tests": 5, "skipped": 0, "errors": 0, "failures": 0} | (counts or {})
    attributes = " ".join(f'{key}="{value}"' for key, value in numbers.items())
    (folder / f"{name}.xml").write_text(f'<testsuites><testsuite name="pytest" {attributes}/></testsuites>')
    # Each try that failed is a line.
    summary = [f"RERUN {test}" for test in again for _ in range(2)]
    (folder / f"{name}.log").write_text("\n".join(["..R..", *summary, f"== 5 passed of {name} in 1s ==", ""]))


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({}, 0),
        ({"skipped": 4}, 0),
        ({"skipped": 5}, 1),
        ({"tests": 0}, 1),
        ({"failures": 1}, 1),
        ({"errors": 1}, 1),
    ],
)
def test_a_target_passes_when_a_test_ran_and_none_failed(
    ci: ModuleType, tmp_path: Path, counts: dict[str, int], status: int
) -> None:
    ran(tmp_path, "test", counts=counts)
    assert ci.target("test", tmp_path) == status


@pytest.mark.parametrize("report", [None, "", "<testsuites>"])
def test_a_target_without_a_report_has_failed(
    ci: ModuleType, tmp_path: Path, report: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if report is not None:
        (tmp_path / "test.xml").write_text(report)
    assert ci.target("test", tmp_path) == 1
    assert "ci: make test: 0 tests ran" in capsys.readouterr().err


def test_the_closing_lines_name_each_test_that_was_tried_again(
    ci: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(tmp_path, "test", ("tests/a.py::test_it[redis with a prefix]",))
    ran(tmp_path, "jitter", ("tests/b.py::test_it",))
    assert ci.close(["test", "jitter", "conformance"], tmp_path) == 0
    out = capsys.readouterr().out
    assert out.count("  needed another try: ") == 2
    assert "  needed another try: tests/a.py::test_it[redis with a prefix]\n" in out
    assert "  == 5 passed of jitter in 1s ==\n" in out
    assert "make conformance: did not run\n" in out


def test_more_than_two_over_all_targets_fail(
    ci: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two cases of one test are two tests."""
    ran(tmp_path, "test", ("tests/a.py::test_it[redis]", "tests/a.py::test_it[redis with a prefix]"))
    assert ci.close(["test"], tmp_path) == 0
    ran(tmp_path, "jitter", ("tests/b.py::test_it",))
    assert ci.close(["test", "jitter"], tmp_path) == 1
    assert "ci: 3 tests needed another try; at most 2 may" in capsys.readouterr().err


def test_anything_else_is_no_command(ci: ModuleType) -> None:
    assert [ci.main(arguments) for arguments in ([], ["close"], ["target"], ["open", "x"])] == [2] * 4


def test_the_script_of_ci_asks_for_it_and_tries_once_more() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "scripts/ci_results.py" in script
    assert "--reruns 1 " in script
