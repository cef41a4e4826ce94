"""Put grpcurl into .tools/, built from the Go module proxy, and print where it is: for make conformance.

Standard library only.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from livekit_server import build_environment, find_go
from steps import ROOT, TOOLS, StepFailed, exclusive, run_logged, terminate_on_signals

VERSION = "1.9.4"
MODULE = "github.com/fullstorydev/grpcurl/cmd/grpcurl"
# Built by `go install` it does not know its own version: the name says it.
GRPCURL = TOOLS / f"grpcurl-{VERSION}"


def main() -> int:
    terminate_on_signals()
    try:
        if not GRPCURL.exists():
            with exclusive("grpcurl"):
                _build()
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(GRPCURL)
    return 0


def _build() -> None:
    if GRPCURL.exists():  # by the run that we waited for
        return
    go = find_go(ROOT / ".venv" / "bin" / "python")
    with tempfile.TemporaryDirectory(prefix="grpcurl-build-", dir=TOOLS) as scratch:
        run_logged(
            f"building grpcurl v{VERSION}",
            [str(go), "install", f"{MODULE}@v{VERSION}"],
            env=build_environment(Path(scratch)),
            expect="once, 1 to 5 minutes",
        )
        # A rename within one file system is atomic: an interrupted build leaves no half program.
        (Path(scratch) / "grpcurl").replace(GRPCURL)


if __name__ == "__main__":
    sys.exit(main())
