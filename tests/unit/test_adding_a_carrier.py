"""docs/adding-a-carrier.md walks through the code of tests/acme, and through nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/adding-a-carrier.md").read_text()
PIECES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PATHS = sorted(set(re.findall(r"`((?:connector|tests|simulator)/[\w/.-]+)`", PAGE)))


def bare(code: str) -> str:
    """Without indentation and empty lines, which the page has in its own way."""
    return "".join(f"{line.strip()}\n" for line in code.splitlines() if line.strip())


SOURCE = "".join(bare(path.read_text()) for path in sorted((ROOT / "tests/acme").glob("*.py")))


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.strip().splitlines()[0])
def test_a_piece_of_code_on_the_page_is_that_of_the_tests(piece: str) -> None:
    assert bare(piece) in SOURCE


@pytest.mark.parametrize("path", PATHS)
def test_a_path_on_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists()
