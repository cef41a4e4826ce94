"""Count the tests of a CI run: `ci_results.py target NAME` after each target, `ci_results.py close NAME…` at the end.

Both read the folder `ci-out`: NAME.xml is pytest's JUnit report, NAME.log its output with `-rR`. `close` prints each
test that needed another try, and fails when there were more than two: then the suite is unsteady, not the machine.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steps import ROOT

RESULTS = ROOT / "ci-out"
MOST_TRIED_AGAIN = 2
CLOSING_LINES = 3
# A line of pytest's summary; names of parametrised tests may have spaces.
_RERUN = re.compile(r"^RERUN (\S.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    ran: int
    skipped: int
    bad: int
    """Failed at every try, or could not be set up."""


def counts_of(report: Path) -> Counts:
    """A missing or broken report has no test that ran."""
    try:
        suites = list(ET.parse(report).iter("testsuite"))
    except (OSError, ET.ParseError):
        return Counts(0, 0, 0)

    def total(*names: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites for name in names)

    skipped = total("skipped")
    return Counts(total("tests") - skipped, skipped, total("errors", "failures"))


def tried_again(log: Path) -> list[str]:
    """The tests that needed another try, each once."""
    if not log.exists():
        return []
    return sorted(set(_RERUN.findall(log.read_text(errors="replace"))))


def target(name: str, folder: Path = RESULTS) -> int:
    """Fails when a test failed, and when none ran."""
    counts = counts_of(folder / f"{name}.xml")
    if counts.ran <= 0 or counts.bad:
        print(f"ci: make {name}: {counts.ran} tests ran, {counts.bad} failed", file=sys.stderr)
        return 1
    again = len(tried_again(folder / f"{name}.log"))
    print(f"ci: make {name}: {counts.ran} tests ran, {counts.skipped} skipped, {again} needed another try")
    return 0


def close(names: Sequence[str], folder: Path = RESULTS) -> int:
    """Prints the closing lines; fails when more tests needed another try than are excused, over all targets."""
    total = 0
    for name in names:
        log = folder / f"{name}.log"
        if not log.exists():
            print(f"make {name}: did not run")
            continue
        print(f"make {name}:")
        again = tried_again(log)
        total += len(again)
        for test in again:
            print(f"  needed another try: {test}")
        with log.open(errors="replace") as lines:
            for line in deque(lines, CLOSING_LINES):
                print(f"  {line.rstrip()}")
    if total > MOST_TRIED_AGAIN:
        print(f"ci: {total} tests needed another try; at most {MOST_TRIED_AGAIN} may", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["target", name]:
            return target(name)
        case ["close", *names] if names:
            return close(names)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
